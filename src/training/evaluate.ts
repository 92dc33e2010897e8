import { z } from 'zod';
import type { Actor } from '../accounts/audit.ts';
import { splits } from '../datasets/tables.ts';
import { parseInput, refuse } from '../errors.ts';
import { submitJob } from '../jobs/enqueue.ts';
import type { JobKind, JobServices } from '../jobs/kinds.ts';
import { cpuThreadsOf, launchTrainer } from '../jobs/python.ts';
import { EvaluateSpec, SPEC_VERSION, testTimeAugmentation } from '../jobs/specs.ts';
import { storedSpec } from '../jobs/storedSpec.ts';
import type { Job } from '../jobs/tables.ts';
import { codeVersion } from '../version.ts';
import { OutputLayout } from '../vision/spec.ts';
import { acceptEvaluation, requireMade } from './register.ts';
import {
  datasetRef,
  modelRef,
  requireClasses,
  requirePreprocess,
  requireReadyDataset,
  requireReadyModel,
  requireTask,
  taskOf,
} from './sources.ts';

/** `specJson` of an EVALUATE job. */
export const EvaluateRequest = z.object({
  modelVersionId: z.string(),
  datasetVersionId: z.string(),
  split: z.enum(splits),
  outputLayout: OutputLayout.nullable(),
  batchSize: z.int().min(1).max(1024),
  cpuThreads: z.int().min(1).max(1024),
  device: z.enum(['auto', 'cpu', 'cuda']),
  seed: z.int().min(0).max(0xffff_ffff),
  testTimeAugmentation,
});
export type EvaluateRequest = z.infer<typeof EvaluateRequest>;

const StartEvaluationInput = z.object({
  modelVersionId: z.string(),
  datasetVersionId: z.string(),
  split: z.enum(splits),
  outputLayout: OutputLayout.nullable().default(null),
  testTimeAugmentation: testTimeAugmentation.default('NONE'),
  idempotencyKey: z.string().max(200).nullish(),
});

const requestOf = (job: Job): EvaluateRequest => EvaluateRequest.parse(storedSpec(job));

/** Puts the evaluation of a version on a split of a dataset version into the queue. */
export function startEvaluation(services: JobServices, actor: Actor, raw: unknown): Job {
  const input = parseInput(StartEvaluationInput, raw);
  const { modelVersionId, datasetVersionId, split, outputLayout, testTimeAugmentation } = input;
  return submitJob(services, actor, { kind: 'EVALUATE', input }, (tx): EvaluateRequest => {
    const version = requireReadyModel(tx, modelVersionId);
    const dataset = requireReadyDataset(tx, datasetVersionId);
    requireTask(tx, dataset, taskOf(tx, version));
    requireClasses(version, dataset.classesJson);
    requirePreprocess(version);
    if (!dataset.countsJson?.images[split]) refuse('INVALID', 'split', 'The dataset version has no images in this split.');
    return {
      modelVersionId,
      datasetVersionId,
      split,
      outputLayout,
      batchSize: 32,
      cpuThreads: cpuThreadsOf(services.config),
      device: 'auto',
      seed: 0,
      testTimeAugmentation,
    };
  });
}

/** A version's metrics on a split. */
export const evaluateJob: JobKind = {
  timeLimitMs: 6 * 3_600_000,

  async launch(services, { job }) {
    const { modelVersionId, datasetVersionId, outputLayout, ...rest } = requestOf(job);
    return launchTrainer(
      services.config,
      EvaluateSpec.parse({
        kind: 'EVALUATE',
        specVersion: SPEC_VERSION,
        codeVersion,
        ...rest,
        model: modelRef(services, modelVersionId, outputLayout),
        dataset: await datasetRef(services, datasetVersionId),
      }),
    );
  },

  async finish(services, attempt, outcome) {
    const { modelVersionId, datasetVersionId, split, testTimeAugmentation } = requestOf(attempt.job);
    const made = requireMade(outcome, 'EVALUATION');
    const engine = String(outcome.result.engine);
    const insert = await acceptEvaluation(services, attempt, made, { datasetVersionId, split, engine, testTimeAugmentation });
    return (tx) => ({ ...outcome.result, evaluationId: insert(tx, modelVersionId).id });
  },

  redo(tx, retried) {
    const { modelVersionId, datasetVersionId } = requestOf(retried);
    requireReadyModel(tx, modelVersionId);
    requireReadyDataset(tx, datasetVersionId);
  },
};
