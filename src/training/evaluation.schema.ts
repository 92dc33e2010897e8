/** What was measured of a version, and what to look at in it. */
import { findItem, findVersionEver } from '../datasets/datasets.ts';
import { DatasetItemType, SplitType } from '../datasets/items.schema.ts';
import { DatasetVersionType } from '../datasets/schema.ts';
import { ApiError } from '../errors.ts';
import { builder, enumValues } from '../graphql/builder.ts';
import { findJob } from '../jobs/jobs.ts';
import type { DetectionFindings } from '../jobs/results.ts';
import { JobType } from '../jobs/schema.ts';
import type { TestTimeAugmentation } from '../jobs/specs.ts';
import { findModelVersion, findModelVersionEver } from '../models/models.ts';
import { ModelVersionType } from '../models/schema.ts';
import { downloadUrl } from '../storage/links.ts';
import { type Findings, findEvaluation, findFindings } from './evaluations.ts';
import type { EvaluationRow } from './tables.ts';

export const TestTimeAugmentationType = builder.enumType('TestTimeAugmentation', {
  description: 'What is added to each image when a version is evaluated.',
  values: enumValues<TestTimeAugmentation>({
    NONE: 'Nothing: the figures are those of the model as it serves.',
    FLIP: 'Its mirror image. The probabilities of both are averaged; of the boxes of both the suppression keeps the better ones.',
  }),
});

/** Findings with what their numbers stand for. */
interface Of {
  row: EvaluationRow;
  classes: string[];
}
type Found = Of & { findings: Findings };

type DetectorImage = DetectionFindings['worst'][number];
/** Of an image: what the findings of both tasks say of one. */
type ImageNote = Of & {
  note: { n: number; label?: number; predicted?: number; probability?: number; ownProbability?: number; loss?: number } & Partial<
    Omit<DetectorImage, 'n'>
  >;
};

/** The first of a list of at most `most`. */
function firstOf<T>(list: T[], first: number, most: number): T[] {
  if (first < 1 || first > most) throw new ApiError('LIMIT', `first is ${first}: ask for 1 to ${most}.`);
  return list.slice(0, first);
}

const className = ({ classes }: Of, index: number | null | undefined): string | null => (index == null ? null : (classes[index] ?? null));

const BoxKindType = builder.enumType('MistakenBoxKind', {
  description: 'What is wrong with a box.',
  values: enumValues<DetectorImage['boxes'][number]['kind']>({
    MISSED: 'A true box that no found box of its class covers.',
    FALSE: 'A found box that covers no true box of its class.',
  }),
});

const MistakenBoxType = builder.objectRef<Of & { box: DetectorImage['boxes'][number] }>('MistakenBox').implement({
  description: 'A mistake of a detector, in pixels of the upright image.',
  fields: (t) => ({
    kind: t.field({ type: BoxKindType, description: 'What is wrong with it.', resolve: ({ box }) => box.kind }),
    class: t.string({ nullable: true, description: 'Name of its class.', resolve: (of) => className(of, of.box.label) }),
    score: t.float({ nullable: true, description: 'Of a found box; null for a missed one.', resolve: ({ box }) => box.score }),
    x: t.float({ description: 'Left edge, in pixels from the left edge of the image.', resolve: ({ box }) => box.x }),
    y: t.float({ description: 'Upper edge, in pixels from the upper edge of the image.', resolve: ({ box }) => box.y }),
    width: t.float({ description: 'In pixels.', resolve: ({ box }) => box.width }),
    height: t.float({ description: 'In pixels.', resolve: ({ box }) => box.height }),
  }),
});

const ImageType = builder.objectRef<ImageNote>('EvaluatedImage').implement({
  description: 'An image that is worth a look, with what the model makes of it.',
  fields: (t) => ({
    item: t.field({
      type: DatasetItemType,
      nullable: true,
      description: 'The image, with its thumbnail; null when the dataset version was deleted.',
      resolve: ({ row, note }, _a, { db }) => findItem(db, row.datasetVersionId, note.n),
    }),
    class: t.string({
      nullable: true,
      description: 'CLASSIFICATION: its class in the dataset.',
      resolve: (of) => className(of, of.note.label),
    }),
    predictedClass: t.string({
      nullable: true,
      description: 'CLASSIFICATION: what the model takes it for; of a likely label error what it probably shows.',
      resolve: (of) => className(of, of.note.predicted),
    }),
    probability: t.float({ nullable: true, description: 'CLASSIFICATION: of `predictedClass`.', resolve: ({ note }) => note.probability }),
    ownProbability: t.float({ nullable: true, description: 'CLASSIFICATION: of `class`.', resolve: ({ note }) => note.ownProbability }),
    loss: t.float({
      nullable: true,
      description: 'CLASSIFICATION: its cross-entropy, of the worst images.',
      resolve: ({ note }) => note.loss,
    }),
    missed: t.int({
      nullable: true,
      description: 'DETECTION: objects that no box of their class found.',
      resolve: ({ note }) => note.missed,
    }),
    falseBoxes: t.int({
      nullable: true,
      description: 'DETECTION: boxes that found no object of their class.',
      resolve: ({ note }) => note.false,
    }),
    boxes: t.field({
      type: [MistakenBoxType],
      nullable: true,
      description: 'DETECTION: its missed objects, then its false boxes; at most 20.',
      extensions: { size: 2 },
      resolve: ({ row, classes, note }) => note.boxes?.map((box) => ({ row, classes, box })),
    }),
  }),
});

const LabelErrorsType = builder.objectRef<Found>('LabelErrors').implement({
  description:
    'Images that are probably labelled wrongly, by confident learning (Northcutt et al. 2021): their class is less probable than it is for the mean ' +
    'of its images, and another class is as probable as it is for the mean of its own.',
  fields: (t) => ({
    count: t.int({
      description: 'How many there are.',
      resolve: ({ findings }) => ('labelErrors' in findings ? findings.labelErrors.count : 0),
    }),
    images: t.field({
      type: [ImageType],
      description: 'The most probable ones first; at most 50 are kept.',
      args: { first: t.arg.int({ required: true, defaultValue: 10, description: 'How many at most: 1 to 50.' }) },
      resolve: ({ row, classes, findings }, { first }) =>
        'labelErrors' in findings ? firstOf(findings.labelErrors.images, first, 50).map((note) => ({ row, classes, note })) : [],
    }),
  }),
});

const PairType = builder.objectRef<Of & { pair: Findings['confused'][number] }>('ConfusedPair').implement({
  description: 'A class, and what the model takes it for.',
  fields: (t) => ({
    class: t.string({
      nullable: true,
      description: 'The true class; null for boxes where no object is.',
      resolve: (of) => className(of, of.pair.label),
    }),
    predictedClass: t.string({
      nullable: true,
      description: 'What the model says; null for objects that it missed.',
      resolve: (of) => className(of, of.pair.predicted),
    }),
    count: t.int({ description: 'Images of a classifier, objects or boxes of a detector.', resolve: ({ pair }) => pair.count }),
    examples: t.field({
      type: [DatasetItemType],
      description: 'Images that show it, at most 6; none when the dataset version was deleted.',
      extensions: { size: 6 },
      resolve: ({ row, pair }, _a, { db }) => pair.examples.flatMap((n) => findItem(db, row.datasetVersionId, n) ?? []),
    }),
  }),
});

const BestThresholdType = builder.objectRef<NonNullable<DetectionFindings['best']>>('BestThreshold').implement({
  description: 'The score from which boxes should count: where F1, the harmonic mean of precision and recall, is highest at IoU 0.5.',
  fields: (t) => ({
    score: t.exposeFloat('score', { description: 'The lowest score that counts: a `scoreThreshold` for a deployment.' }),
    f1: t.exposeFloat('f1', { description: 'F1 there.' }),
    precision: t.exposeFloat('precision', { description: 'Share of the boxes that found an object.' }),
    recall: t.exposeFloat('recall', { description: 'Share of the objects that were found.' }),
  }),
});

type OfSize = DetectionFindings['sizes']['small'];
const SizeType = builder.objectRef<OfSize>('AccuracyOfSize').implement({
  description: 'Mean average precision for the objects of a size.',
  fields: (t) => ({
    objects: t.exposeInt('objects', { description: 'True boxes of this size.' }),
    map5095: t.float({ nullable: true, description: 'Over IoU 0.5, 0.55 … 0.95; null without objects.', resolve: ({ ap }) => ap }),
    map50: t.float({ nullable: true, description: 'At IoU 0.5; null without objects.', resolve: ({ ap50 }) => ap50 }),
  }),
});

const sizes = {
  small: 'Boxes of up to 32 × 32 pixels of the upright image, as COCO has it; the area of the box counts, not that of an outline.',
  medium: 'Boxes of up to 96 × 96 pixels.',
  large: 'Larger boxes.',
} as const;
const SizesType = builder.objectRef<DetectionFindings['sizes']>('AccuracyBySize').implement({
  description: 'Mean average precision by the size of the objects.',
  fields: (t) => ({
    small: t.expose('small', { type: SizeType, description: sizes.small }),
    medium: t.expose('medium', { type: SizeType, description: sizes.medium }),
    large: t.expose('large', { type: SizeType, description: sizes.large }),
  }),
});

const FindingsType = builder.objectRef<Found>('EvaluationFindings').implement({
  description: 'What to look at in an evaluation. Of a detector boxes count from `bestThreshold`, and find an object at IoU 0.5.',
  fields: (t) => ({
    worstImages: t.field({
      type: [ImageType],
      description:
        'CLASSIFICATION: those with the largest loss. DETECTION: those with the most missed objects and false boxes. At most 50.',
      args: { first: t.arg.int({ required: true, defaultValue: 10, description: 'How many at most: 1 to 50.' }) },
      resolve: ({ row, classes, findings }, { first }) =>
        firstOf<ImageNote['note']>(findings.worst, first, 50).map((note) => ({ row, classes, note })),
    }),
    labelErrors: t.field({
      type: LabelErrorsType,
      nullable: true,
      description: 'CLASSIFICATION: images that are probably labelled wrongly. Of images that the model has learned from, it finds fewer.',
      resolve: (found) => ('labelErrors' in found.findings ? found : null),
    }),
    confusedPairs: t.field({
      type: [PairType],
      description: 'What is confused most, with images that show it; at most 20.',
      args: { first: t.arg.int({ required: true, defaultValue: 10, description: 'How many at most: 1 to 20.' }) },
      resolve: ({ row, classes, findings }, { first }) =>
        firstOf<Findings['confused'][number]>(findings.confused, first, 20).map((pair) => ({ row, classes, pair })),
    }),
    bestThreshold: t.field({
      type: BestThresholdType,
      nullable: true,
      description: 'DETECTION: of all classes together; the file of `detailUrl` has that of each. Null where no box found an object.',
      resolve: ({ findings }) => ('best' in findings ? findings.best : null),
    }),
    bySize: t.field({
      type: SizesType,
      nullable: true,
      description: 'DETECTION: mean average precision of small, medium and large objects.',
      resolve: ({ findings }) => ('sizes' in findings ? findings.sizes : null),
    }),
  }),
});

/** Null where they are those of another task. */
const metrics = {
  top1: 'CLASSIFICATION: share of images whose best class is the true one.',
  top5: 'CLASSIFICATION: share of images whose true class is among the best five.',
  macroTop1: 'CLASSIFICATION: mean recall over the classes.',
  loss: 'CLASSIFICATION: mean cross-entropy.',
  map50: 'DETECTION: mean average precision at IoU 0.5, by COCO’s evaluator.',
  map5095: 'DETECTION: mean average precision over IoU 0.5, 0.55 … 0.95, by COCO’s evaluator.',
  scoreThreshold: 'DETECTION: part of the figures’ definition: smaller scores do not count.',
  nmsIou: 'DETECTION: part of the definition: a better box of its class that overlaps more than this takes a box away.',
  boxesMax: 'DETECTION: part of the definition: boxes of an image that count.',
};

export const EvaluationType = builder.node(builder.objectRef<EvaluationRow>('Evaluation'), {
  description: 'What a model version reaches on a split of a dataset version.',
  id: { resolve: (e) => e.id, description: 'Opaque id.' },
  loadOne: (id, { db }) => findEvaluation(db, id),
  authScopes: { can: 'READ' },
  fields: (t) => ({
    modelVersion: t.field({
      type: ModelVersionType,
      nullable: true,
      description: 'What was measured; null when it was deleted.',
      resolve: (e, _a, { db }) => findModelVersion(db, e.modelVersionId),
    }),
    datasetVersion: t.field({
      type: DatasetVersionType,
      description: 'What it was measured on.',
      nullable: true,
      resolve: (e, _a, { db }) => findVersionEver(db, e.datasetVersionId),
    }),
    split: t.expose('split', { type: SplitType, description: 'Which split.' }),
    engine: t.exposeString('engine', { description: 'What computed it, with its version.' }),
    images: t.int({ description: 'Images in the split.', resolve: (e) => e.metricsJson.images ?? 0 }),
    ...Object.fromEntries(
      Object.entries(metrics).map(([name, description]) => [
        name,
        t.float({ nullable: true, description, resolve: (e) => e.metricsJson[name] ?? null }),
      ]),
    ),
    testTimeAugmentation: t.expose('testTimeAugmentation', {
      type: TestTimeAugmentationType,
      description: 'What was added to each image when it was measured.',
    }),
    findings: t.field({
      type: FindingsType,
      nullable: true,
      description:
        'What to look at: worst images, likely label errors, confusions. Null where an earlier version of Whetstone measured it.',
      resolve: (row, _a, { db }) => {
        const findings = findFindings(db, row.id);
        return findings && { row, classes: findModelVersionEver(db, row.modelVersionId)?.labelsJson ?? [], findings };
      },
    }),
    detailUrl: t.string({
      nullable: true,
      description: 'Download of the figures of each class as JSON, with the confusion matrix and the precision at each recall.',
      resolve: (e, _a, context) => (e.artifactId ? downloadUrl(context, { id: e.artifactId }) : null),
    }),
    job: t.field({
      type: JobType,
      nullable: true,
      description: 'The job that measured it.',
      resolve: (e, _a, { db }) => findJob(db, e.jobId),
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was measured.' }),
  }),
});
