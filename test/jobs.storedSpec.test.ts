/** Jobs that wait over an upgrade: `fixtures/storedSpecs.json` has what each version of the program stored of each kind. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { BenchmarkRequest } from '../src/benchmark/context.ts';
import { benchmarkJob } from '../src/benchmark/job.ts';
import { importDataset } from '../src/datasets/import/kind.ts';
import { ImportDatasetRequest } from '../src/datasets/import/request.ts';
import type { JobKind } from '../src/jobs/kinds.ts';
import { type JobKindName, jobKindTable, Spec } from '../src/jobs/specs.ts';
import { STORED_SPEC_VERSION, type StoredJob, storedSpec } from '../src/jobs/storedSpec.ts';
import type { Job } from '../src/jobs/tables.ts';
import { LoadTestRequest } from '../src/loadTest/start.ts';
import { ImportModelRequest, importModel } from '../src/models/import.ts';
import { model, modelVersion } from '../src/models/tables.ts';
import { blobPath, insertArtifact } from '../src/storage/blobs.ts';
import { type Artifact, blob } from '../src/storage/tables.ts';
import { CompressRequest, compressJob } from '../src/training/compress.ts';
import { ConvertRequest, convertJob } from '../src/training/convert.ts';
import { EvaluateRequest, evaluateJob } from '../src/training/evaluate.ts';
import { storedTraining, TrainRequest, trainJob } from '../src/training/train.ts';
import { AskRequest, askJob } from '../src/tuning/ask.ts';
import { Budget } from '../src/tuning/budget.ts';
import { MeasureRequest, measureJob } from '../src/tuning/measure.ts';
import { study } from '../src/tuning/tables.ts';
import { presetPreprocess } from '../src/vision/spec.ts';
import { type Studied, withStudies } from './support/tuning.ts';

type Stored = Record<string, unknown>;
/** By kind: each form in which specifications were stored, with the first version that stored it; the last one is today's. */
const stored: Record<JobKindName, { from: number; spec: Stored }[]> = JSON.parse(
  readFileSync(join(import.meta.dirname, 'fixtures', 'storedSpecs.json'), 'utf8'),
);
const kindNames = Object.keys(jobKindTable) as JobKindName[];
const versions = Array.from({ length: STORED_SPEC_VERSION }, (_, n) => n + 1);

/** What a job's launch reads in its specification, and the launch, where it needs no process. */
const kinds: Record<JobKindName, { request: z.ZodType; kind?: JobKind }> = {
  IMPORT_DATASET: { request: ImportDatasetRequest, kind: importDataset },
  IMPORT_MODEL: { request: ImportModelRequest, kind: importModel },
  TRAIN: { request: TrainRequest, kind: trainJob },
  CONVERT: { request: ConvertRequest, kind: convertJob },
  COMPRESS: { request: CompressRequest, kind: compressJob },
  EVALUATE: { request: EvaluateRequest, kind: evaluateJob },
  BENCHMARK: { request: BenchmarkRequest, kind: benchmarkJob },
  LOAD_TEST: { request: LoadTestRequest },
  TUNE: { request: Budget.extend({ studyId: z.string(), modelId: z.string(), datasetVersionId: z.string() }) },
  ASK: { request: AskRequest, kind: askJob },
  MEASURE: { request: MeasureRequest, kind: measureJob },
};

const jobOf = (kind: JobKindName, version: number): StoredJob => ({
  kind,
  specVersion: version,
  specJson: stored[kind].findLast(({ from }) => from <= version)?.spec,
});

/** The hyperparameters that were added later say themselves what they were before: `jobs.presets.test.ts`. */
const withHyperparameters = (spec: Stored): Stored =>
  'hyperparameters' in spec ? storedTraining(spec as Parameters<typeof storedTraining>[0]) : spec;

/** The names of an object's fields, whatever makes it up. */
const fieldsOf = (schema: z.core.JSONSchema.JSONSchema): string[] => [
  ...Object.keys(schema.properties ?? {}),
  ...[schema.allOf, schema.anyOf, schema.oneOf].flatMap((parts) => (parts ?? []).flatMap((part) => fieldsOf(part as typeof schema))),
];

describe('a specification', () => {
  test('of each kind is among those that are tried here', () => {
    expect(Object.keys(stored).sort()).toEqual(kindNames.toSorted());
    for (const forms of Object.values(stored)) {
      expect(forms[0]?.from).toBe(1);
      expect(forms.every(({ from }) => versions.includes(from))).toBe(true);
    }
  });

  // Where this fails a kind has changed: `storedSpec.ts` needs a row for what is stored already, and the fixture the new form.
  test.each(kindNames)('%s that is stored today has every field that its launch reads', (name) => {
    const { request } = kinds[name];
    const today = withHyperparameters(stored[name].at(-1)?.spec as Stored);
    expect(request.parse(today)).toEqual(today);
    expect(fieldsOf(z.toJSONSchema(request, { io: 'input' })).filter((field) => !(field in today))).toEqual([]);
  });

  test.each(kindNames.flatMap((name) => versions.map((version) => [name, version] as const)))(
    '%s that version %i has stored is read as that version meant it',
    (name, version) => {
      const today = withHyperparameters(stored[name].at(-1)?.spec as Stored);
      expect(kinds[name].request.parse(withHyperparameters(storedSpec(jobOf(name, version))))).toEqual(today);
    },
  );

  test('of every version can be launched: what goes to the child keeps to the protocol, and is the same for all of them', () =>
    withRows(async (studies) => {
      for (const name of kindNames) {
        const { kind } = kinds[name];
        if (!kind) continue;
        const specs = await Promise.all(versions.map((version) => launched(studies, kind, jobOf(name, version))));
        for (const spec of specs) {
          expect(Spec.parse(spec)).toEqual(spec);
          expect(spec).toEqual(specs.at(-1));
        }
      }
    }));
});

const launched = async (studies: Studied, kind: JobKind, job: StoredJob) => {
  const workDir = join(studies.services().config.dataDir, 'work');
  return (await kind.launch(studies.services(), { job: job as Job, attemptNumber: 1, workDir, resumeFrom: null })).spec;
};

/** Runs `use` with all that the specifications name. */
const withRows = (use: (studies: Studied) => Promise<void>): Promise<void> =>
  withStudies(async (studies) => {
    const { config, db } = studies.services();
    const { study: started } = await studies.start({ objectives: ['TOP1', 'LATENCY'] });
    if (!started) throw new Error('The study was not started.');
    db.insert(study)
      .values({ ...started, id: 'study' })
      .run();
    const keep = (ownerType: Artifact['ownerType'], ownerId: string, kind: Artifact['kind']) => {
      const file = { sha256: ownerId.padEnd(64, '0'), sizeBytes: 1 };
      db.insert(blob)
        .values({ ...file, createdAt: 0 })
        .onConflictDoNothing()
        .run();
      return insertArtifact(db, file, { ownerType, ownerId, kind, name: 'file' }).id;
    };
    for (const kind of ['DATASET_ZIP', 'MANIFEST', 'IMAGES'] as const) keep('DATASET_VERSION', 'data', kind);
    const zip = blobPath(config.dataDir, String(stored.IMPORT_DATASET[0]?.spec.sha256));
    mkdirSync(dirname(zip), { recursive: true });
    writeFileSync(zip, '');
    db.insert(model).values({ id: 'model', name: 'versions', task: 'CLASSIFICATION', createdAt: 0 }).run();
    const port = (name: string, shape: (string | number)[]) => [{ name, elementType: 'FLOAT', shape: ['batch', ...shape] }];
    const signatureJson = {
      ...{
        inputs: port('image', [3, 32, 32]),
        outputs: port('y', [2]),
        operators: {},
        opsets: {},
        irVersion: 9,
        producer: '',
        parameters: 0,
      },
      ...{ elementTypes: {}, labels: null, preprocess: null, metadata: {}, metadataTruncated: false, weightsHash: null, exporter: null },
    };
    const common = { modelId: 'model', state: 'READY', precision: 'FP32', origin: 'TRAINED', preset: 'resnet50', createdAt: 0 } as const;
    const described = { labelsJson: ['0', '1'], preprocessJson: { ...presetPreprocess(32) } };
    for (const [number, id, format, kind] of [
      [1, 'checkpoint', 'CHECKPOINT', 'WEIGHTS'],
      [2, 'onnx', 'ONNX', 'ONNX'],
    ] as const) {
      const artifactId = keep('MODEL_VERSION', id, kind);
      db.insert(modelVersion)
        .values({ id, number, format, artifactId, ...common, ...described, signatureJson })
        .run();
    }
    await use(studies);
  });
