/** Sections that the reports of trainings and of evaluations share. */
import { opaqueId } from '../../naming.ts';
import { duration, number, percent, plural } from '../format.ts';
import { none, type Section } from '../forms/document.ts';
import type { ClassificationDetail, DetectionDetail } from './detail.ts';
import type { DatasetFacts, EvaluationFacts, JobFacts, VersionFacts } from './facts.ts';
import { findingSections, pairText, type Thumbnails } from './findingSections.ts';
import type { FindingFacts } from './findings.ts';
import { detailPlots } from './plots.ts';

/** Rows of a table of classes; CSV has all of them. */
const classesMax = 50;

export const versionName = (version: Pick<VersionFacts, 'name' | 'number'> | null): string =>
  version ? `${version.name ?? '(deleted)'} version ${version.number}` : '(deleted)';

export const datasetName = ({ name, number: version }: DatasetFacts): string => `${name ?? '(deleted)'} version ${version ?? none}`;

/** The metrics of a task in the order in which they count, and how each is written. */
const metricTexts: [key: string, title: string, write: (value: number) => string][] = [
  ['top1', 'top-1', percent],
  ['top5', 'top-5', percent],
  ['macroTop1', 'mean recall of the classes', percent],
  ['loss', 'cross-entropy', number],
  ['map5095', 'mAP50-95', (value) => value.toFixed(4)],
  ['map50', 'mAP50', (value) => value.toFixed(4)],
  ['objects', 'objects', String],
  ['images', 'images', String],
  ['scoreThreshold', 'score threshold', String],
  ['nmsIou', 'IoU of suppression', String],
  ['boxesMax', 'boxes of an image at most', String],
];

export const metricRows = (metrics: Record<string, number>): { title: string; text: string }[] =>
  metricTexts.flatMap(([key, title, write]) => (metrics[key] === undefined ? [] : [{ title, text: write(metrics[key]) }]));

/** The metric that versions are compared by, such as `top-1 97.50 %`. */
export function mainMetric(evaluation: EvaluationFacts | null): string | null {
  const [first] = evaluation ? metricRows(evaluation.metrics) : [];
  return first ? `${first.title} ${first.text}` : null;
}

const shareText = (share: number | null): string => (share === null ? none : percent(share));
const precisionText = (value: number | null): string => (value === null ? none : value.toFixed(4));

/** The metrics, what is confused, pictures, and the classes, the worst first. */
export function evaluationSections(evaluation: EvaluationFacts | null, thumbnails: Thumbnails): Section[] {
  if (!evaluation) return [];
  const { metrics, detail, findings, split, engine, testTimeAugmentation } = evaluation;
  const flipped = testTimeAugmentation === 'FLIP' ? ', each image together with its mirror image (test-time augmentation)' : '';
  const metricTable = {
    table: {
      caption: `Measured on the split ${split} by ${engine}${flipped}.`,
      head: ['Metric', 'Value'],
      rows: [...metricRows(metrics), ...(findings?.task === 'DETECTION' ? detectionRows(findings) : [])].map(({ title, text }) => [
        title,
        text,
      ]),
    },
  };
  const gone = { text: 'The figures of each class were deleted with the model version.' };
  return [
    { heading: 'Metrics', blocks: [metricTable, detail ? { plots: detailPlots(detail) } : gone] },
    ...(detail?.task === 'CLASSIFICATION' ? [pairSection(detail)] : []),
    ...(findings?.task === 'DETECTION' ? [mistakeSection(findings)] : []),
    ...findingSections(findings, thumbnails),
    ...(detail ? [detail.task === 'CLASSIFICATION' ? classifierClasses(detail) : detectorClasses(detail)] : []),
  ];
}

type OfTask<T, Name extends string> = Extract<T, { task: Name }>;

/** The score that a deployment should start from, and AP by size. */
function detectionRows({ best, sizes, iou }: OfTask<FindingFacts, 'DETECTION'>): { title: string; text: string }[] {
  const bySize = Object.entries(sizes).map(([size, { objects, ap }]) => ({
    title: `mAP50-95 of ${plural(objects, `${size} object`)}`,
    text: precisionText(ap),
  }));
  return best
    ? [
        { title: `best score threshold (highest F1 at IoU ${iou})`, text: number(best.score) },
        { title: 'F1 there', text: best.f1.toFixed(4) },
        { title: 'precision and recall there', text: `${percent(best.precision)}, ${percent(best.recall)}` },
        ...bySize,
      ]
    : bySize;
}

const pairSection = ({ pairs }: ClassificationDetail): Section => ({
  heading: 'Most confused pairs',
  blocks:
    pairs.length === 0
      ? [{ text: 'Every image got its true class.' }]
      : [
          {
            table: {
              caption: 'Images of the first class that the model takes for the second one, with their share of its images.',
              head: ['True class', 'Taken for', 'Images', 'Share'],
              rows: pairs.map(({ is, takenFor, images, share }) => [is, takenFor, `${images}`, percent(share)]),
            },
          },
        ],
});

const classifierClasses = ({ perClass }: ClassificationDetail): Section =>
  classSection(
    perClass.toSorted((a, b) => (a.recall ?? 2) - (b.recall ?? 2)),
    ['Class', 'Images', 'Precision', 'Recall'],
    ({ name, images, precision, recall }) => [name, `${images}`, shareText(precision), shareText(recall)],
  );

const mistakeSection = ({ confused, iou, best }: OfTask<FindingFacts, 'DETECTION'>): Section => ({
  heading: 'Most frequent mistakes',
  blocks:
    confused.length === 0
      ? [{ text: 'No object was missed and no box was false.' }]
      : [
          {
            table: {
              caption: `Mistakes at IoU ${iou}, where boxes count from a score of ${best ? number(best.score) : none}.`,
              head: ['Mistake', 'How often'],
              rows: confused.map(({ class: is, predictedClass, count }) => [pairText(is, predictedClass), `${count}`]),
            },
          },
        ],
});

const detectorClasses = ({ perClass }: DetectionDetail): Section =>
  classSection(
    perClass.toSorted((a, b) => (a.ap ?? 2) - (b.ap ?? 2)),
    ['Class', 'Objects', 'AP50-95', 'AP50', 'Best threshold', 'F1 there'],
    ({ name, objects, ap, ap50, best }) => [
      name,
      `${objects}`,
      precisionText(ap),
      precisionText(ap50),
      best ? number(best.score) : none,
      precisionText(best?.f1 ?? null),
    ],
  );

function classSection<T>(worstFirst: T[], head: string[], cells: (one: T) => string[]): Section {
  const left = worstFirst.length - classesMax;
  const caption = `The classes, the worst first${left > 0 ? `; ${left} better ones are in the export as CSV` : ''}.`;
  return { heading: 'Classes', blocks: [{ table: { caption, head, rows: worstFirst.slice(0, classesMax).map(cells) } }] };
}

/** Each class of an evaluation as CSV. */
export function classTable(evaluation: EvaluationFacts | null): { head: string[]; rows: (string | number | null)[][] } {
  const detail = evaluation?.detail;
  if (detail?.task === 'DETECTION') {
    return {
      head: ['class', 'objects', 'ap5095', 'ap50', 'bestThreshold', 'f1'],
      rows: detail.perClass.map(({ name, objects, ap, ap50, best }) => [name, objects, ap, ap50, best?.score ?? null, best?.f1 ?? null]),
    };
  }
  return {
    head: ['class', 'images', 'precision', 'recall'],
    rows: (detail?.perClass ?? []).map(({ name, images, precision, recall }) => [name, images, precision, recall]),
  };
}

/** Why there is no result, or how long it took. */
export function endText({ state, failure, durationMs, attempts }: JobFacts): string {
  const taken = `${duration(durationMs)} in ${plural(attempts.length, 'attempt')}`;
  if (failure) return `It failed after ${taken}: ${failure.message} (${failure.code})`;
  return state === 'SUCCEEDED' ? `It took ${taken}.` : `Its state is ${state}, after ${taken}.`;
}

export const attemptSection = ({ attempts }: JobFacts): Section => ({
  heading: 'Attempts',
  folded: true,
  blocks: [
    {
      table: {
        caption: 'Each attempt is one run of the job’s process.',
        head: ['#', 'State', 'Started', 'Time', 'Continued after', 'Device', 'Counts as a crash'],
        rows: attempts.map(({ number: n, state, startedAt, durationMs, charged, resumed, device }) => [
          `${n}`,
          state,
          startedAt ?? none,
          durationMs === null ? none : duration(durationMs),
          resumed ? `epoch ${resumed.epoch}, batch ${resumed.batch}` : none,
          device ? [device.name, device.type].filter((part) => typeof part === 'string').join(', ') : none,
          charged ? 'yes' : 'no',
        ]),
      },
    },
  ],
});

export const lineageSection = (versions: (VersionFacts | null)[]): Section => ({
  heading: 'Lineage',
  folded: true,
  blocks: [
    {
      table: {
        caption: 'The model versions, and what each was made from.',
        head: ['Version', 'Format', 'Origin', 'Made from', 'SHA-256 of the file', 'Lineage hash'],
        rows: versions
          .filter((version) => version !== null)
          .map((version) => [
            versionName(version),
            `${version.format} ${version.precision}`,
            version.origin,
            version.parents.map(versionName).join(', ') || none,
            version.sha256 ?? none,
            version.lineageHash ?? none,
          ]),
      },
    },
  ],
});

/** `rows` name what else the report is about. */
export const provenanceSection = (rows: string[][]): Section => ({
  heading: 'Provenance',
  folded: true,
  blocks: [
    {
      table: {
        caption: 'What the report was made from. The field node(id) of the API finds what these ids name.',
        head: ['What', 'Id'],
        rows,
      },
    },
  ],
});

export const datasetRow = (dataset: DatasetFacts): string[] => [datasetName(dataset), opaqueId('DatasetVersion', dataset.versionId)];
export const versionRow = (version: Pick<VersionFacts, 'name' | 'number' | 'versionId'>): string[] => [
  versionName(version),
  opaqueId('ModelVersion', version.versionId),
];
export const shaText = (sha256: string): string => `SHA-256 of this report as JSON: ${sha256}`;
