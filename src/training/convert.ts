import { z } from 'zod';
import type { Actor } from '../accounts/audit.ts';
import type { Config } from '../config.ts';
import type { Queryable } from '../db.ts';
import { parseInput, refuse } from '../errors.ts';
import { enqueue, submitJob } from '../jobs/enqueue.ts';
import type { JobKind, JobServices } from '../jobs/kinds.ts';
import { cpuThreadsOf, launchTrainer } from '../jobs/python.ts';
import { ConvertSpec, SPEC_VERSION } from '../jobs/specs.ts';
import { storedSpec } from '../jobs/storedSpec.ts';
import type { Job } from '../jobs/tables.ts';
import { codeVersion } from '../version.ts';
import { acceptEvaluatedOnnx } from './register.ts';
import { datasetFor, datasetRef, modelRef, requireLabels, requireReadyDataset, requireReadyModel, requireTask, taskOf } from './sources.ts';

/** `specJson` of a CONVERT job. */
export const ConvertRequest = z.object({
  modelVersionId: z.string(),
  datasetVersionId: z.string().nullable(),
  cpuThreads: z.int().min(1).max(1024),
  device: z.enum(['auto', 'cpu', 'cuda']),
  seed: z.int().min(0).max(0xffff_ffff),
  conversion: ConvertSpec.shape.conversion,
});
export type ConvertRequest = z.infer<typeof ConvertRequest>;

const StartConversionInput = z.object({
  modelVersionId: z.string(),
  datasetVersionId: z.string().nullish(),
  idempotencyKey: z.string().max(200).nullish(),
});

const requestOf = (job: Job): ConvertRequest => ConvertRequest.parse(storedSpec(job));

const requestFor = (config: Pick<Config, 'cores' | 'slots'>, modelVersionId: string, datasetVersionId: string | null): ConvertRequest => ({
  modelVersionId,
  datasetVersionId,
  cpuThreads: cpuThreadsOf(config),
  device: 'cpu',
  seed: 0,
  conversion: ConvertSpec.shape.conversion.parse({}),
});

/** Puts the conversion of a checkpoint version into the queue. Without a dataset it is compared on seeded noise. */
export function startConversion(services: JobServices, actor: Actor, raw: unknown): Job {
  const input = parseInput(StartConversionInput, raw);
  const { modelVersionId } = input;
  return submitJob(services, actor, { kind: 'CONVERT', input }, (tx) => {
    const source = requireReadyModel(tx, modelVersionId);
    if (source.format !== 'CHECKPOINT')
      refuse('INVALID', 'modelVersionId', 'Only a checkpoint can be converted: this version is ONNX already.');
    requireLabels(source);
    const datasetVersionId = datasetFor(tx, source, input.datasetVersionId);
    if (datasetVersionId) requireTask(tx, requireReadyDataset(tx, datasetVersionId), taskOf(tx, source));
    return requestFor(services.config, modelVersionId, datasetVersionId);
  });
}

/** The conversion of what a training has made: its child, or that of the study that started it, in the transaction that ends it. */
export function enqueueConversion(tx: Queryable, { config }: Pick<JobServices, 'config'>, parent: Job, modelVersionId: string): Job {
  const version = requireReadyModel(tx, modelVersionId);
  return enqueue(
    tx,
    { actorId: parent.createdById, requestId: null },
    {
      kind: 'CONVERT',
      spec: requestFor(config, modelVersionId, version.datasetVersionId),
      priority: parent.priority,
      parentId: parent.parentId ?? parent.id,
    },
  );
}

/** A checkpoint version becomes an ONNX version behind the conversion gate, with an evaluation of its own. */
export const convertJob: JobKind = {
  timeLimitMs: 6 * 3_600_000,

  async launch(services, { job }) {
    const { modelVersionId, datasetVersionId, ...computing } = requestOf(job);
    return launchTrainer(
      services.config,
      ConvertSpec.parse({
        kind: 'CONVERT',
        specVersion: SPEC_VERSION,
        codeVersion,
        ...computing,
        model: modelRef(services, modelVersionId),
        dataset: datasetVersionId ? await datasetRef(services, datasetVersionId) : null,
      }),
    );
  },

  async finish(services, attempt, outcome) {
    const { modelVersionId, datasetVersionId } = requestOf(attempt.job);
    const source = requireReadyModel(services.db, modelVersionId);
    const origin = {
      modelId: source.modelId,
      jobId: attempt.job.id,
      datasetVersionId: source.datasetVersionId,
      parentId: source.id,
      labels: requireLabels(source),
      preprocess: null,
      lineageSpec: { kind: 'CONVERT' },
      how: 'CONVERTED',
    } as const;
    return acceptEvaluatedOnnx(services, attempt, outcome, origin, { kind: 'CONVERT', datasetVersionId });
  },

  redo(tx, retried) {
    const { modelVersionId, datasetVersionId } = requestOf(retried);
    requireReadyModel(tx, modelVersionId);
    if (datasetVersionId) requireReadyDataset(tx, datasetVersionId);
  },
};
