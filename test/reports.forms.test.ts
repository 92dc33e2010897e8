import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { toCsv } from '../src/reports/forms/csv.ts';
import type { DocumentBlock, ReportDocument } from '../src/reports/forms/document.ts';
import { toHtml } from '../src/reports/forms/html.ts';
import { toMarkdown } from '../src/reports/forms/markdown.ts';
import { comparisonDocument } from '../src/reports/jobs/comparisonDocument.ts';
import { classificationDetail, detectionDetail } from '../src/reports/jobs/detail.ts';
import { evaluationDocument } from '../src/reports/jobs/evaluationDocument.ts';
import type { EvaluationFacts, StudyFacts, TrainingFacts } from '../src/reports/jobs/facts.ts';
import type { FindingFacts } from '../src/reports/jobs/findings.ts';
import { studyDocument, trialTable } from '../src/reports/jobs/studyDocument.ts';
import { trainingDocument } from '../src/reports/jobs/trainingDocument.ts';
import { jobFacts, madeUpStudy, noDataset } from './support/studyFacts.ts';

const text = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.constantFrom('</script><svg onload=alert(1)>', '"><img src=x onerror=alert(1)>', '![x](http://x)', '|', '=1+1', '`a`', '\n# h'),
);
const table = fc.integer({ min: 1, max: 4 }).chain((columns) => {
  const row = fc.array(text, { minLength: columns, maxLength: columns });
  return fc.record({ caption: text, head: row, rows: fc.array(row, { minLength: 1, maxLength: 4 }) });
});
const side = fc.integer({ min: 1, max: 9 });
const address = fc.constantFrom(null, 'data:image/webp;base64,AA==');
const boxes = fc.array(fc.record({ kind: fc.constantFrom('MISSED', 'FALSE'), x: side, y: side, width: side, height: side }), {
  maxLength: 2,
});
const block: fc.Arbitrary<DocumentBlock> = fc.oneof(
  fc.record({ text }),
  fc.record({ list: fc.array(text) }),
  fc.record({ steps: fc.array(text) }),
  fc.record({ table }),
  fc.record({ pictures: fc.array(fc.record({ address, width: side, height: side, name: text, caption: text, boxes }), { minLength: 1 }) }),
);
const document: fc.Arbitrary<ReportDocument> = fc.record({
  kind: text,
  title: text,
  lead: fc.array(block, { maxLength: 3 }),
  sections: fc.array(
    fc.record({ heading: text, blocks: fc.array(block, { maxLength: 3 }), folded: fc.boolean(), screenOnly: fc.boolean() }),
    { maxLength: 3 },
  ),
  footer: fc.array(text, { maxLength: 2 }),
});

describe('a document of any names', () => {
  test('is HTML whose only markup is its own', () =>
    fc.assert(
      fc.property(document, (made) => {
        const body = toHtml(made).replace(/^[\s\S]*<body>/, '');
        const own =
          /<section class="screen">|<\/?(main|p|h1|h2|section|details|summary|ul|ol|li|table|caption|thead|tbody|tr|footer|body|html)>|<(p|td|th|tr) class="(kind|n|long|marked)">|<th scope="(row|col)"( class="(n|long)")?>|<\/(td|th|div)>|<td>|<div class="scroll" role="region" tabindex="0" aria-label="[^"<>]*">|<ul class="pictures">|<\/?(li|figure|figcaption)>|<br>|<span class="name">|<\/span>|<svg viewBox="0 0 \d \d" role="img" aria-label="[^"<>]*">|<\/svg>|<image href="data:image\/webp;base64,AA==" width="\d" height="\d"\/>|<rect class="(missed|false)" x="\d" y="\d" width="\d" height="\d"\/>/g;
        expect(body.replace(own, '')).not.toMatch(/[<>]/);
      }),
      { numRuns: 300 },
    ));

  test('is Markdown whose only markup is its own', () =>
    fc.assert(
      fc.property(document, (made) => {
        const markdown = toMarkdown(made);
        expect(markdown).not.toMatch(/(?<!\\)(\\\\)*[<>`[\]]/);
        const headings = markdown.split('\n').filter((line) => /^\s*#/.test(line));
        expect(headings.length).toBeLessThanOrEqual(1 + made.sections.length);
      }),
      { numRuns: 300 },
    ));

  test('is CSV that no spreadsheet computes', () =>
    fc.assert(
      fc.property(fc.array(fc.array(text, { minLength: 2, maxLength: 2 })), (rows) => {
        for (const line of toCsv(['a', 'b'], rows).split('\r\n')) expect(line).not.toMatch(/^"?[=+@\t-]/);
      }),
    ));
});

describe('the detail of an evaluation', () => {
  const names = (count: number) => Array.from({ length: count }, (_, n) => `class ${n}`);

  test('of many classes keeps those that are confused most', () => {
    const classes = names(30);
    const confusion = classes.map((_, is) =>
      classes.map((_, other) => (is === other ? 10 : is === 25 && other === 29 ? 3 : is === 1 && other === 0 ? 2 : 0)),
    );
    const perClass = classes.map((name) => ({ name, images: 10, precision: 1, recall: 1 }));
    const detail = classificationDetail({ classes, perClass, confusion });
    expect(detail.pairs).toEqual([
      { is: 'class 25', takenFor: 'class 29', images: 3, share: 0.3 },
      { is: 'class 1', takenFor: 'class 0', images: 2, share: 0.2 },
    ]);
    expect(detail.confusion.classes).toHaveLength(20);
    expect(detail.confusion.classes).toEqual(expect.arrayContaining(['class 0', 'class 1', 'class 25', 'class 29']));
    expect(detail.confusion.counts[detail.confusion.classes.indexOf('class 25')]?.at(-1)).toBe(3);
  });

  const curve = (value: number) => Array.from({ length: 101 }, (_, i) => (i < 100 * value ? 1 : 0));
  const metrics = { images: 20, objects: 50, map50: 0.6, map5095: 0.4, scoreThreshold: 0.001, nmsIou: 0.7, boxesMax: 300 };
  const found = (name: string, ap50: number | null) => ({
    name,
    objects: ap50 === null ? 0 : 10,
    ap: ap50,
    ap50,
    precision: ap50 === null ? null : curve(ap50),
    scores: ap50 === null ? null : curve(ap50),
    best: ap50 === null ? null : { score: 0.3, f1: 0.5, precision: 0.5, recall: 0.5 },
  });
  const ofSize = (objects: number) => ({ objects, ap: objects > 0 ? 0.3 : null, ap50: objects > 0 ? 0.4 : null });
  const detector: FindingFacts = {
    task: 'DETECTION',
    iou: 0.5,
    best: { score: 0.25, f1: 0.6, precision: 0.7, recall: 0.5 },
    sizes: { small: ofSize(7), medium: ofSize(0), large: ofSize(43) },
    confused: [
      { class: 'class 1', predictedClass: 'class 2', count: 5, examples: [{ n: 3, path: 'val/3.png' }] },
      { class: 'class 3', predictedClass: null, count: 2, examples: [] },
      { class: null, predictedClass: 'class 4', count: 1, examples: [] },
    ],
    worst: [
      { n: 4, path: null, missed: 1, false: 2, boxes: [{ kind: 'FALSE', class: 'class 4', score: 0.4, x: 1, y: 2, width: 3, height: 4 }] },
    ],
  };

  test('of a detector has the mean curve and those of the classes that are found worst', () => {
    const perClass = [found('none', null), ...[0.9, 0.2, 0.8, 0.5, 0.4, 0.6].map((ap50, n) => found(`class ${n}`, ap50))];
    const classes = perClass.map(({ name }) => name);
    const detail = detectionDetail({
      classes,
      perClass,
      findings: { confusion: [...classes, ''].map((_, n) => classes.map((_c, m) => Number(n === m))) },
    });
    expect(detail.confusion?.classes.at(-1)).toBe('background');
    expect(detail.precision.worst.map(({ name }) => name)).toEqual(['class 1', 'class 4', 'class 3', 'class 5', 'class 2']);
    expect(detail.precision.mean?.[30]).toBeCloseTo(5 / 6, 12);
    const html = toHtml(
      trainingDocument({ ...training, evaluation: { ...measured, metrics, detail, findings: detector } }, sha, new Map()),
    );
    expect(html).toContain('Precision and recall at IoU 0.5');
    expect(html).toContain('mAP50-95 0.4000');
    expect(html).toContain('<th scope="row">class 1 taken for class 2</th>');
    for (const said of ['class 3 missed', 'class 4 where nothing is', '1 missed, 2 false boxes', 'mAP50-95 of 7 small objects'])
      expect(html).toContain(said);
    expect(html).toContain('<rect class="false" x="1" y="2" width="3" height="4"/>');
  });

  test('of a file that an earlier version has stored has what that knew', () => {
    const perClass = [found('a', 0.5)].map(({ best: _, ...one }) => one);
    const detail = detectionDetail({ classes: ['a'], perClass });
    expect(detail).toMatchObject({ confusion: null, perClass: [{ ap50: 0.5, best: null }] });
    const html = toHtml(trainingDocument({ ...training, evaluation: { ...measured, metrics, detail, findings: null } }, sha, new Map()));
    expect(html).toContain('Precision and recall at IoU 0.5');
    expect(html).not.toMatch(/Worst images|undefined|NaN/);
  });

  test('of a split without objects has no curve', () => {
    const perClass = [found('none', null)];
    expect(detectionDetail({ classes: ['none'], perClass }).precision).toEqual({ mean: null, worst: [] });
  });
});

/** A training that has begun, and of which everything else was deleted. */
const training: TrainingFacts = {
  kind: 'TRAIN',
  ...jobFacts,
  model: null,
  task: 'CLASSIFICATION',
  preset: 'resnet50',
  dataset: noDataset,
  init: { from: 'WEIGHTS', version: null },
  seed: 0,
  device: 'auto',
  cpuThreads: 1,
  processes: 1,
  hyperparameters: { epochs: 5, learningRate: 0.00015 },
  result: null,
  version: null,
  conversion: null,
  evaluation: null,
  curves: [],
};
const sha = 'a'.repeat(64);
const measured = { split: 'val', engine: 'torch 2', testTimeAugmentation: 'NONE' as const };
const begun: StudyFacts = { ...madeUpStudy, state: 'RUNNING', model: null, dataset: noDataset, trials: [], front: [], importance: [] };

describe('a report of a job that has not ended, and of things that were deleted', () => {
  test.each([
    ['training', trainingDocument(training, sha, new Map())],
    [
      'evaluation',
      evaluationDocument(
        { kind: 'EVALUATE', ...jobFacts, version: null, dataset: noDataset, split: 'val', evaluation: null },
        sha,
        new Map(),
      ),
    ],
    ['study', studyDocument(begun, sha)],
    ['comparison', comparisonDocument([training, { ...training, seed: 1 }], sha)],
  ])('%s says what there is', (_name, made) => {
    for (const written of [toHtml(made), toMarkdown(made)]) {
      expect(written).not.toMatch(/undefined|null|NaN/);
      expect(written).toContain('RUNNING');
    }
  });

  test('names the code of a failure', () => {
    const failure = { code: 'DATA_INVALID', message: 'The images are gone.' };
    const written = toMarkdown(trainingDocument({ ...training, state: 'FAILED', failure }, sha, new Map()));
    expect(written).toContain('The images are gone. (DATA\\_INVALID)');
  });

  test('keeps the metrics of an evaluation whose file was deleted', () => {
    const evaluation: EvaluationFacts = { ...measured, metrics: { images: 12, top1: 0.75 }, detail: null, findings: null };
    const written = toMarkdown(trainingDocument({ ...training, evaluation }, sha, new Map()));
    expect(written).toContain('top-1 75.00 %');
    expect(written).toContain('were deleted with the model version');
  });
});

describe('the report of a study', () => {
  const html = toHtml(studyDocument(madeUpStudy, sha));

  test('shows its history, its front, the importance, parallel coordinates and a slice of each hyperparameter', () => {
    const titles = [...html.matchAll(/<svg [^>]*><title>([^<]*)/g)].map(([, title]) => title);
    expect(titles).toEqual([
      'History of top-1',
      'History of MACs',
      'top-1 against MACs',
      'Importance of the hyperparameters',
      'Parallel coordinates',
      ...['learningRate', 'imageSize', 'optimizer', 'momentum'].map((name) => `top-1 by ${name}`),
    ]);
    expect(html).not.toMatch(/<script|<svg onload|NaN|undefined/);
  });

  test('of one objective has no front to draw', () => {
    const one = { ...madeUpStudy, objectives: ['TOP1'] as const, importance: [] };
    const written = toHtml(studyDocument({ ...one, objectives: [...one.objectives], front: [15] }, sha));
    expect(written).toContain('The best value is reached by 1 trial.');
    expect(written).not.toMatch(/against|Importance of/);
  });

  test('says what became of the trials; a copy has trained no epoch', () => {
    const markdown = toMarkdown(studyDocument(madeUpStudy, sha));
    expect(markdown).toContain(
      '24 of 24 trials in generations of 8: 11 trained to the end, 11 stopped early, 1 without a result (WORST), 1 equal to an earlier one. They trained 47 epochs.',
    );
    expect(markdown).toContain('| 9 | 1 | copy of 1 |');
  });

  test('has a line of CSV for each trial, empty where a hyperparameter has no effect', () => {
    const { head, rows } = trialTable(madeUpStudy);
    const [first, second] = toCsv(head, rows).split('\r\n').slice(1);
    expect(rows).toHaveLength(24);
    expect(first).toMatch(/^0,0,COMPLETE,,3,false,0\.8\d*,83417088,0\.0003,SGD,0\.8,32$/);
    expect(second).toMatch(/,ADAMW,,64$/);
  });
});
