import { and, desc, eq, isNull, lt, sql } from 'drizzle-orm';
import { z } from 'zod';
import { dataset, datasetVersion } from '../datasets/tables.ts';
import type { Queryable } from '../db.ts';
import { dimensionsOf } from '../engine/shapes.ts';
import { refuse } from '../errors.ts';
import { OnnxMeta } from '../jobs/results.ts';
import { BenchmarkSettings, BenchmarkSpec, dimensions } from '../jobs/specs.ts';
import { inputsOf } from '../models/signature.ts';
import { type ModelVersion, model, modelVersion } from '../models/tables.ts';
import { evaluation } from '../training/tables.ts';
import { codeVersion } from '../version.ts';
import { dimsOf } from '../vision/input.ts';
import { PreprocessSpec } from '../vision/spec.ts';

/** `specJson` of a BENCHMARK job. */
export const BenchmarkRequest = z.object({
  modelVersionIds: z.array(z.string()).min(1),
  batchSizes: BenchmarkSpec.shape.batchSizes,
  engines: BenchmarkSpec.shape.engines,
  intraOpThreads: BenchmarkSpec.shape.intraOpThreads,
  /** Reports of earlier versions were all of one stream and one instance. */
  scenario: BenchmarkSpec.shape.scenario.default('SINGLE_STREAM'),
  instances: BenchmarkSpec.shape.instances.default([1]),
  dims: dimensions,
  seed: BenchmarkSpec.shape.seed,
  profile: z.enum(['QUICK', 'FULL']),
  settings: BenchmarkSettings,
  target: BenchmarkSpec.shape.target,
  /** Largest loss of accuracy, against the most accurate version, that a choice may cost. */
  accuracyDropMax: z.number().min(0).max(1),
});
export type BenchmarkRequest = z.infer<typeof BenchmarkRequest>;

/** The metric that versions of a task are compared by: of classifiers and of detectors. */
export const accuracyMetrics = ['TOP1', 'MAP50_95'] as const;

/** What one version reaches, as some job has measured it. */
const Accuracy = z.object({
  metric: z.enum(accuracyMetrics),
  /** 0 to 1; more is better. */
  value: z.number(),
  images: z.int(),
  dataset: z.string(),
  datasetVersion: z.int(),
  datasetHash: z.string(),
  split: z.string(),
  engine: z.string(),
  /** Whether the checkpoint was measured that the version was converted from: the gate holds the two together. */
  ofParent: z.boolean(),
});
type Accuracy = z.infer<typeof Accuracy>;

/** How much of the accuracy a choice may lose, unless told otherwise. */
export const accuracyDropUsual = 0.01;

const ModelContext = z.object({
  versionId: z.string(),
  name: z.string(),
  number: z.int(),
  origin: z.string(),
  precision: z.string(),
  preset: z.string().nullable(),
  sizeBytes: z.int(),
  sha256: z.string(),
  weightsHash: z.string().nullable(),
  lineageHash: z.string(),
  parameters: z.int(),
  /** Sizes of its open dimensions, as they were measured; benchmarks of earlier versions did not keep them. */
  dims: dimensions.optional(),
  accuracy: Accuracy.nullable(),
  /** What the newest earlier version with other weights reaches on the same images; benchmarks of earlier versions did not look for one. */
  earlier: z.object({ number: z.int(), value: z.number() }).nullable().optional(),
});
export type ModelContext = z.infer<typeof ModelContext>;

/** Everything that a report says and that may change after the benchmark, as it was at its end. */
export const BenchmarkContext = z.object({
  jobId: z.string(),
  /** Unix milliseconds. */
  measuredAt: z.int(),
  codeVersion: z.string(),
  /** Whether its rows were measured in rounds, so that they can be compared; earlier versions measured one row after the other. */
  inRounds: z.boolean().default(false),
  request: BenchmarkRequest,
  /** In the order of the request's ids. */
  models: z.array(ModelContext),
});
export type BenchmarkContext = z.infer<typeof BenchmarkContext>;

export function readContext(db: Queryable, jobId: string, request: BenchmarkRequest): BenchmarkContext {
  const models = request.modelVersionIds.map((id) => modelContext(db, id, request));
  return { jobId, measuredAt: Date.now(), codeVersion, inRounds: true, request, models };
}

function modelContext(db: Queryable, id: string, { dims }: BenchmarkRequest): ModelContext {
  const found = db
    .select({ version: modelVersion, name: model.name })
    .from(modelVersion)
    .innerJoin(model, eq(model.id, modelVersion.modelId))
    .where(eq(modelVersion.id, id))
    .get();
  if (!found) throw new Error(`Model version ${id} is gone.`);
  const { version, name } = found;
  const { number, origin, precision, preset, sizeBytes, sha256, weightsHash, lineageHash } = version;
  const accuracy = accuracyOf(db, version);
  return {
    versionId: id,
    name,
    number,
    origin,
    precision,
    preset,
    sizeBytes: sizeBytes as number,
    sha256: sha256 as string,
    weightsHash,
    lineageHash: lineageHash as string,
    parameters: OnnxMeta.parse(version.signatureJson).parameters,
    dims: sizesOf(version, dims),
    accuracy,
    earlier: accuracy && earlierAccuracy(db, version, accuracy),
  };
}

/** The sizes of a version's open dimensions: its preprocessing decides those of an image, `said` the others. */
export function sizesOf(
  { signatureJson, preprocessJson }: Pick<ModelVersion, 'signatureJson' | 'preprocessJson'>,
  said: BenchmarkRequest['dims'],
): BenchmarkRequest['dims'] {
  const inputs = inputsOf(OnnxMeta.parse(signatureJson));
  const sized = dimsOf(inputs, PreprocessSpec.nullable().parse(preprocessJson), said);
  if ('problem' in sized) refuse('INVALID', 'dims', sized.problem);
  const own = dimensionsOf(inputs);
  return Object.fromEntries(Object.entries(sized.dims).filter(([name]) => own.includes(name)));
}

/** What the metrics of an evaluation are compared by. */
export const accuracyIn = ({ map5095, top1, images }: Record<string, number>): Pick<Accuracy, 'metric' | 'value' | 'images'> => ({
  ...(map5095 === undefined ? { metric: 'TOP1', value: top1 as number } : { metric: 'MAP50_95', value: map5095 }),
  images: images as number,
});

/** The newest evaluation of the version, or else of the checkpoint that it was converted from. */
export function accuracyOf(db: Queryable, version: ModelVersion): ModelContext['accuracy'] {
  const own = newestEvaluation(db, version.id);
  const parent = !own && version.origin === 'CONVERTED' && version.parentId ? newestEvaluation(db, version.parentId) : undefined;
  const found = own ?? parent;
  if (!found) return null;
  const { metricsJson, split, engine } = found.evaluation;
  return {
    ...accuracyIn(metricsJson),
    dataset: found.dataset,
    datasetVersion: found.number,
    datasetHash: found.contentHash as string,
    split,
    engine,
    ofParent: !own,
  };
}

function newestEvaluation(db: Queryable, modelVersionId: string) {
  return (
    db
      .select({ evaluation, dataset: dataset.name, number: datasetVersion.number, contentHash: datasetVersion.contentHash })
      .from(evaluation)
      .innerJoin(datasetVersion, eq(datasetVersion.id, evaluation.datasetVersionId))
      .innerJoin(dataset, eq(dataset.id, datasetVersion.datasetId))
      // What serves has no test-time augmentation.
      .where(and(eq(evaluation.modelVersionId, modelVersionId), eq(evaluation.testTimeAugmentation, 'NONE')))
      .orderBy(desc(evaluation.createdAt), desc(evaluation.id))
      .get()
  );
}

/** What `accuracy` of a version can be compared with. */
export function earlierAccuracy(db: Queryable, version: ModelVersion, { metric, datasetHash, split }: Accuracy): ModelContext['earlier'] {
  const found = db
    .select({ number: modelVersion.number, metricsJson: evaluation.metricsJson })
    .from(evaluation)
    .innerJoin(modelVersion, eq(modelVersion.id, evaluation.modelVersionId))
    .innerJoin(datasetVersion, eq(datasetVersion.id, evaluation.datasetVersionId))
    .where(
      and(
        eq(modelVersion.modelId, version.modelId),
        lt(modelVersion.number, version.number),
        isNull(modelVersion.deletedAt),
        // A checkpoint and what was converted from it are the same model.
        version.weightsHash === null ? undefined : sql`${modelVersion.weightsHash} IS NOT ${version.weightsHash}`,
        eq(datasetVersion.contentHash, datasetHash),
        sql`${evaluation.split} = ${split}`,
        eq(evaluation.testTimeAugmentation, 'NONE'),
      ),
    )
    .orderBy(desc(modelVersion.number), desc(evaluation.createdAt), desc(evaluation.id))
    .get();
  const reached = found && accuracyIn(found.metricsJson);
  return reached?.metric === metric ? { number: found?.number as number, value: reached.value } : null;
}
