import { join } from 'node:path';
import { and, eq, inArray } from 'drizzle-orm';
import { z } from 'zod';
import { refuse } from '../errors.ts';
import { JobFailure, type JobKind } from '../jobs/kinds.ts';
import { launchTrainer } from '../jobs/python.ts';
import { ImportModelSpec, SPEC_VERSION } from '../jobs/specs.ts';
import { isInputFault } from '../jobs/states.ts';
import { storedSpec } from '../jobs/storedSpec.ts';
import { type Job, job } from '../jobs/tables.ts';
import { blobPath, dropArtifacts, insertArtifact, storeFile } from '../storage/blobs.ts';
import { artifact } from '../storage/tables.ts';
import { codeVersion } from '../version.ts';
import { PreprocessSpec, Task } from '../vision/spec.ts';
import { storedName } from './files.ts';
import { lineageHashOf } from './lineage.ts';
import { limitsFor, loadOnce } from './load.ts';
import { Labels, onnxSignature, type SignatureColumns, weightsSignature } from './signature.ts';
import { modelVersion } from './tables.ts';

/** `specJson` of an IMPORT_MODEL job. */
export const ImportModelRequest = z.object({
  modelVersionId: z.string(),
  /** Of the uploaded bytes, which are the version's artifact until the import has ended. */
  sha256: z.string(),
  fileName: z.string(),
  /** A second upload, in which the tensors outside an ONNX file lie. */
  data: z.object({ sha256: z.string(), fileName: z.string() }).nullable(),
  task: Task,
  preset: ImportModelSpec.shape.preset,
  labels: Labels.nullable(),
  preprocess: PreprocessSpec.nullable(),
  cpuThreads: z.int(),
});
export type ImportModelRequest = z.infer<typeof ImportModelRequest>;

const requestOf = (job: Job): ImportModelRequest => ImportModelRequest.parse(storedSpec(job));

/** An uploaded file becomes a model version: ONNX as one file, a state dict as safetensors. */
export const importModel: JobKind = {
  timeLimitMs: 15 * 60_000,

  launch({ config }, attempt) {
    const { sha256, fileName, data, preset, cpuThreads } = requestOf(attempt.job);
    return launchTrainer(
      config,
      ImportModelSpec.parse({
        kind: 'IMPORT_MODEL',
        specVersion: SPEC_VERSION,
        codeVersion,
        cpuThreads,
        file: blobPath(config.dataDir, sha256),
        fileName,
        preset,
        data: data && { file: blobPath(config.dataDir, data.sha256), fileName: data.fileName },
        limits: {},
      }),
    );
  },

  async finish(services, attempt, { artifacts }) {
    const { config, db } = services;
    const request = requestOf(attempt.job);
    const [made] = artifacts;
    if (!made) throw new Error('The import has made no artifact.');
    // Null: the uploaded file stays as it is.
    const changed = made.file === null ? null : join(attempt.workDir, made.file);
    let signature: SignatureColumns;
    let stored = { sha256: request.sha256, sizeBytes: made.sizeBytes };
    if (made.kind === 'ONNX') {
      const { inputs, outputs, ...rest } = onnxSignature(made.meta, request);
      signature = rest;
      const loaded = await loadOnce(
        config.dataDir,
        changed ?? blobPath(config.dataDir, request.sha256),
        join(attempt.workDir, 'load'),
        limitsFor(made.sizeBytes),
      );
      if (`${loaded.inputs}` !== `${inputs}` || `${loaded.outputs}` !== `${outputs}`) {
        throw new JobFailure('MODEL_INVALID', 'The serving engine reads other inputs or outputs in the file than the inspection.');
      }
    } else {
      signature = weightsSignature(made.meta, request);
    }
    if (changed) stored = await storeFile(services, changed);
    if (stored.sha256 !== made.sha256) throw new Error('The file is not the one that was inspected.');
    const lineageHash = lineageHashOf(db, {
      sha256: stored.sha256,
      spec: { kind: 'IMPORT_MODEL', preset: signature.preset, labels: signature.labelsJson, preprocess: signature.preprocessJson },
      parentId: null,
      datasetVersionId: null,
    });

    return (tx) => {
      dropArtifacts(tx, 'MODEL_VERSION', request.modelVersionId);
      const format = made.kind === 'ONNX' ? 'ONNX' : 'CHECKPOINT';
      const { id } = insertArtifact(tx, stored, {
        ownerType: 'MODEL_VERSION',
        ownerId: request.modelVersionId,
        kind: format === 'ONNX' ? 'ONNX' : 'WEIGHTS',
        name: storedName(request.fileName, format),
      });
      tx.update(modelVersion)
        .set({ state: 'READY', ...signature, ...stored, lineageHash, artifactId: id })
        .where(eq(modelVersion.id, request.modelVersionId))
        .run();
      return { modelVersionId: request.modelVersionId };
    };
  },

  undo(tx, failed) {
    const { modelVersionId } = requestOf(failed);
    tx.update(modelVersion).set({ state: 'FAILED' }).where(eq(modelVersion.id, modelVersionId)).run();
    const failure = tx.select({ code: job.failureCode }).from(job).where(eq(job.id, failed.id)).get();
    if (isInputFault(failure?.code)) dropArtifacts(tx, 'MODEL_VERSION', modelVersionId);
  },

  redo(tx, retried) {
    const { modelVersionId, sha256, data } = requestOf(retried);
    const version = tx.select().from(modelVersion).where(eq(modelVersion.id, modelVersionId)).get();
    const needed = [sha256, ...(data ? [data.sha256] : [])];
    const kept = tx
      .select()
      .from(artifact)
      .where(and(eq(artifact.ownerType, 'MODEL_VERSION'), eq(artifact.ownerId, modelVersionId), inArray(artifact.sha256, needed)))
      .all();
    if (!version || version.deletedAt !== null || kept.length < needed.length)
      refuse('INVALID', 'jobId', 'The file is not stored any more: upload it again.');
    tx.update(modelVersion).set({ state: 'IMPORTING', jobId: retried.id }).where(eq(modelVersion.id, modelVersionId)).run();
  },
};
