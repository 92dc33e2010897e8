import { randomUUIDv7 } from 'node:crypto';
import { and, eq, isNull, ne, sql } from 'drizzle-orm';
import { z } from 'zod';
import { type Actor, writeAudit } from '../accounts/audit.ts';
import { canonicalJson } from '../canonical.ts';
import { tasks } from '../datasets/tables.ts';
import { inTransaction, type Queryable } from '../db.ts';
import { parseInput, refuse } from '../errors.ts';
import { announceJob, enqueue, findByIdempotencyKey, type NewJob } from '../jobs/enqueue.ts';
import { requireInstalled } from '../jobs/extras.ts';
import type { JobServices } from '../jobs/kinds.ts';
import { cpuThreadsOf } from '../jobs/python.ts';
import { ImportModelSpec } from '../jobs/specs.ts';
import { storedSpec } from '../jobs/storedSpec.ts';
import { type Job, job } from '../jobs/tables.ts';
import { Name, Notes } from '../naming.ts';
import { insertArtifact } from '../storage/blobs.ts';
import { type TakenUpload, takeUpload } from '../storage/uploads.ts';
import { PreprocessSpec } from '../vision/spec.ts';
import { endings, formatOf } from './files.ts';
import { ImportModelRequest } from './import.ts';
import { findModelByName, insertModel, nextNumber } from './models.ts';
import { Labels } from './signature.ts';
import { type Model, type ModelVersion, model, modelVersion } from './tables.ts';

/** As a user says it. */
export const SaidPreprocess = PreprocessSpec.refine(({ std }) => std.every((value) => value > 0), {
  path: ['std'],
  message: 'Each deviation is above 0.',
});

const Sha256 = z.string().regex(/^[0-9a-f]{64}$/i, 'A SHA-256 has 64 hexadecimal digits.');

const CreateModelInput = z.object({
  name: Name,
  task: z.enum(tasks),
  preset: ImportModelSpec.shape.preset.nullish().transform((preset) => preset ?? null),
  uploadId: z.string(),
  sha256: Sha256,
  dataUploadId: z.string().nullish(),
  dataSha256: Sha256.nullish(),
  labels: Labels.nullish().transform((labels) => labels ?? null),
  preprocess: SaidPreprocess.nullish().transform((preprocess) => preprocess ?? null),
  notes: Notes.nullish(),
  idempotencyKey: z.string().max(200).nullish(),
});

export interface CreatedModelVersion {
  model: Model;
  version: ModelVersion;
}

/**
 * Makes a version of an upload, in a new model or as the next version of the one that has the name, and puts its import into the
 * queue. The same bytes with the same preset, labels and preprocessing are the same version: where the model has it, that one is
 * given. Other labels or other preprocessing make another version, since a version is a file and how it is used.
 */
export function createModel({ config, db, bus }: JobServices, actor: Actor, raw: unknown): CreatedModelVersion {
  const input = parseInput(CreateModelInput, raw);
  const { name, task, preset, labels, preprocess, notes } = input;
  const wanted = { kind: 'IMPORT_MODEL', input } as const;
  let queued: Job | undefined;
  const created = inTransaction(db, (tx): CreatedModelVersion => {
    const earlier = createdBy(tx, actor, wanted);
    if (earlier) return earlier;
    const { fileName, ...stored } = takeUpload(tx, actor, input.uploadId, input.sha256);
    const format = requireFormat(fileName, preset);
    const found = findModelByName(tx, name);
    if (found && found.task !== task) refuse('INVALID', 'task', `The model ${name} is for ${found.task}.`);
    const row = found ?? insertModel(tx, { name, task, notes: notes ?? '', createdById: actor.actorId });
    const outside = takeData(tx, actor, input, fileName, stored.sha256);
    const data = outside && { sha256: outside.sha256, fileName: outside.fileName };
    const request = { sha256: stored.sha256, data, preset, labels, preprocess };
    const existing = findSame(tx, row.id, request);
    if (existing) return { model: row, version: existing };
    const id = randomUUIDv7();
    const owned = { ownerType: 'MODEL_VERSION', ownerId: id, kind: format === 'ONNX' ? 'ONNX' : 'WEIGHTS' } as const;
    insertArtifact(tx, stored, { ...owned, name: fileName });
    if (outside) insertArtifact(tx, outside, { ...owned, name: outside.fileName });
    const spec: ImportModelRequest = { ...request, task, modelVersionId: id, fileName, cpuThreads: cpuThreadsOf(config) };
    queued = enqueue(tx, actor, { ...wanted, spec });
    const version = tx
      .insert(modelVersion)
      .values({
        id,
        modelId: row.id,
        number: nextNumber(tx, row.id),
        state: 'IMPORTING',
        format,
        // Until the import has read the file; the API shows none before it is READY.
        precision: 'FP32',
        origin: 'UPLOADED',
        preset,
        jobId: queued.id,
        createdAt: Date.now(),
      })
      .returning()
      .get();
    writeAudit(tx, actor, { action: 'createModel', target: { type: 'ModelVersion', id }, detail: { name, number: version.number } });
    return { model: row, version };
  });
  if (queued) announceJob(bus, queued);
  return created;
}

/** The second upload, where there is one: what the tensors of an ONNX file call it is its name. */
function takeData(
  tx: Queryable,
  actor: Actor,
  { dataUploadId, dataSha256 }: z.infer<typeof CreateModelInput>,
  fileName: string,
  sha256: string,
): TakenUpload | null {
  if (!dataUploadId) return null;
  if (!fileName.toLowerCase().endsWith('.onnx'))
    refuse('INVALID', 'dataUploadId', `Data lies beside an .onnx file, not beside ${fileName}. Leave it out, or upload the .onnx file.`);
  if (!dataSha256) refuse('INVALID', 'dataSha256', 'Give the SHA-256 of the second upload too.');
  const data = takeUpload(tx, actor, dataUploadId, dataSha256, { uploadId: 'dataUploadId', sha256: 'dataSha256' });
  if (data.sha256 === sha256) refuse('INVALID', 'dataUploadId', 'Both uploads are the same file: upload the data of the .onnx file.');
  return data;
}

/** What an earlier request with this idempotency key has made. */
function createdBy(tx: Queryable, actor: Actor, wanted: Omit<NewJob, 'spec'>): CreatedModelVersion | undefined {
  const made = findByIdempotencyKey(tx, actor, wanted);
  if (!made) return undefined;
  const id = ImportModelRequest.parse(storedSpec(made)).modelVersionId;
  const row = tx
    .select({ version: modelVersion, model })
    .from(modelVersion)
    .innerJoin(model, eq(model.id, modelVersion.modelId))
    .where(eq(modelVersion.id, id))
    .get();
  return row as CreatedModelVersion;
}

/** What the name of the file says that it is; a state dict belongs to a preset, an ONNX file has its own topology. */
function requireFormat(fileName: string, preset: string | null): ModelVersion['format'] {
  const format = formatOf(fileName);
  if (!format) refuse('INVALID', 'uploadId', `The name of a model's file ends in ${endings.join(', ')}, not as in ${fileName}.`);
  if (format === 'CHECKPOINT' && !preset) refuse('INVALID', 'preset', 'A state dict needs the preset that its weights belong to.');
  requireInstalled(preset);
  if (format === 'ONNX' && preset) refuse('INVALID', 'preset', 'An ONNX file has its own topology: leave the preset out.');
  return format;
}

/** The live version of the model that an import of the same bytes in the same way has made, or is making. */
function findSame(
  tx: Queryable,
  modelId: string,
  { sha256, ...how }: Pick<ImportModelRequest, 'sha256' | 'data' | 'preset' | 'labels' | 'preprocess'>,
): ModelVersion | undefined {
  const live = and(eq(modelVersion.modelId, modelId), isNull(modelVersion.deletedAt), ne(modelVersion.state, 'FAILED'));
  return tx
    .select({ version: modelVersion, job })
    .from(modelVersion)
    .innerJoin(job, eq(job.id, modelVersion.jobId))
    .where(and(live, eq(job.kind, 'IMPORT_MODEL'), sql`${job.specJson} ->> '$.sha256' = ${sha256}`))
    .all()
    .find((found) => {
      const { data, preset, labels, preprocess } = ImportModelRequest.parse(storedSpec(found.job));
      return canonicalJson({ data, preset, labels, preprocess }) === canonicalJson(how);
    })?.version;
}
