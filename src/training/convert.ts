import { z } from 'zod';
import type { Actor } from '../accounts/audit.ts';
import { parseInput, refuse } from '../errors.ts';
import { submitJob } from '../jobs/enqueue.ts';
import type { JobKind, JobServices } from '../jobs/kinds.ts';
import { cpuThreadsOf, launchTrainer } from '../jobs/python.ts';
import { ConvertSpec, SPEC_VERSION } from '../jobs/specs.ts';
import type { Job } from '../jobs/tables.ts';
import { codeVersion } from '../version.ts';
import { acceptOnnx } from './register.ts';
import { datasetRef, modelRef, requireLabels, requireReadyDataset, requireReadyModel, requireTask, taskOf } from './sources.ts';

/** `specJson` of a CONVERT job. */
export const ConvertRequest = z.object({
  modelVersionId: z.string(),
  datasetVersionId: z.string().nullable(),
  cpuThreads: z.int().min(1).max(1024),
  device: z.enum(['auto', 'cpu', 'cuda']),
  seed: z.int().min(0).max(0xffff_ffff),
});
export type ConvertRequest = z.infer<typeof ConvertRequest>;

const StartConversionInput = z.object({
  modelVersionId: z.string(),
  datasetVersionId: z.string().nullish(),
  idempotencyKey: z.string().max(200).nullish(),
});

const requestOf = ({ specJson }: Pick<Job, 'specJson'>): ConvertRequest => ConvertRequest.parse(specJson);

/** Puts the conversion of a checkpoint version into the queue. Without a dataset it is compared on seeded noise. */
export function startConversion(services: JobServices, actor: Actor, raw: unknown): Job {
  const { modelVersionId, idempotencyKey, ...input } = parseInput(StartConversionInput, raw);
  return submitJob(services, actor, { kind: 'CONVERT', idempotencyKey }, (tx): ConvertRequest => {
    const source = requireReadyModel(tx, modelVersionId);
    if (source.format !== 'CHECKPOINT')
      refuse('INVALID', 'modelVersionId', 'Only a checkpoint can be converted: this version is ONNX already.');
    requireLabels(source);
    // By default the data that it was trained on.
    const datasetVersionId = input.datasetVersionId ?? source.datasetVersionId;
    if (datasetVersionId) requireTask(tx, requireReadyDataset(tx, datasetVersionId), taskOf(tx, source));
    return { modelVersionId, datasetVersionId, cpuThreads: cpuThreadsOf(services.config), device: 'cpu', seed: 0 };
  });
}

/** A checkpoint version becomes an ONNX version behind the conversion gate. */
export const convertJob: JobKind = {
  timeLimitMs: 6 * 3_600_000,

  async launch(services, { job }) {
    const { modelVersionId, datasetVersionId, ...computing } = requestOf(job);
    return launchTrainer(
      ConvertSpec.parse({
        kind: 'CONVERT',
        specVersion: SPEC_VERSION,
        codeVersion,
        ...computing,
        model: modelRef(services, modelVersionId),
        dataset: datasetVersionId ? await datasetRef(services, datasetVersionId) : null,
        conversion: {},
      }),
    );
  },

  async finish(services, attempt, outcome) {
    const { modelVersionId } = requestOf(attempt.job);
    const source = requireReadyModel(services.db, modelVersionId);
    const insert = await acceptOnnx(services, attempt, outcome, {
      modelId: source.modelId,
      jobId: attempt.job.id,
      datasetVersionId: source.datasetVersionId,
      parentId: source.id,
      labels: requireLabels(source),
      lineageSpec: { kind: 'CONVERT' },
    });
    return (tx) => ({ ...outcome.result, modelVersionId: insert(tx).id });
  },
};
