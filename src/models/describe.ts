/** Other labels or other preprocessing for a file that is there: a version is a file and how it is used, so that makes another version. */
import { randomUUIDv7 } from 'node:crypto';
import { and, eq, isNull } from 'drizzle-orm';
import { z } from 'zod';
import { type Actor, writeAudit } from '../accounts/audit.ts';
import { canonicalJson } from '../canonical.ts';
import { type Db, inTransaction, type Queryable } from '../db.ts';
import { notFound, parseInput, refuse } from '../errors.ts';
import { JobFailure } from '../jobs/kinds.ts';
import { findArtifact, insertArtifact } from '../storage/blobs.ts';
import { PreprocessSpec } from '../vision/spec.ts';
import { SaidPreprocess } from './create.ts';
import { lineageHashOf } from './lineage.ts';
import { findModel, findModelVersion, nextNumber } from './models.ts';
import { Labels, onnxSignature, weightsSignature } from './signature.ts';
import { type Model, type ModelVersion, modelVersion } from './tables.ts';

const DescribeInput = z.object({ modelVersionId: z.string(), labels: Labels.nullish(), preprocess: SaidPreprocess.nullish() });

/**
 * The version of the same file with these labels and this preprocessing: the one that the model has, or a new one, READY at once, whose
 * parent is the version that was described. What is left out stays as it is.
 */
export function describeModelVersion({ db }: { db: Db }, actor: Actor, raw: unknown): { model: Model; version: ModelVersion } {
  const input = parseInput(DescribeInput, raw);
  return inTransaction(db, (tx) => {
    const source = findModelVersion(tx, input.modelVersionId) ?? notFound('model version');
    const row = findModel(tx, source.modelId) ?? notFound('model');
    const { state, format, sha256, sizeBytes, signatureJson } = source;
    if (state !== 'READY' || !sha256 || sizeBytes === null)
      refuse('INVALID', 'modelVersionId', `Version ${source.number} is ${state}, not READY.`);
    const described = {
      task: row.task,
      labels: input.labels ?? source.labelsJson,
      preprocess: input.preprocess ?? PreprocessSpec.nullable().parse(source.preprocessJson),
    };
    const columns = fitting(() => {
      if (format === 'CHECKPOINT') return weightsSignature(signatureJson, described);
      const { inputs: _inputs, outputs: _outputs, ...signature } = onnxSignature(signatureJson, described);
      return signature;
    });
    const existing = findSame(tx, source, columns);
    if (existing) return { model: row, version: existing };
    const id = randomUUIDv7();
    const kind = format === 'ONNX' ? 'ONNX' : 'WEIGHTS';
    const { name } = findArtifact(tx, 'MODEL_VERSION', source.id, kind) ?? notFound('file of the model version');
    const { id: artifactId } = insertArtifact(tx, { sha256, sizeBytes }, { ownerType: 'MODEL_VERSION', ownerId: id, kind, name });
    const parents = { parentId: source.id, datasetVersionId: source.datasetVersionId };
    const spec = { kind: 'DESCRIBE', labels: columns.labelsJson, preprocess: columns.preprocessJson };
    const version = tx
      .insert(modelVersion)
      .values({
        id,
        modelId: row.id,
        number: nextNumber(tx, row.id),
        state: 'READY',
        format,
        origin: 'DESCRIBED',
        ...columns,
        weightsHash: source.weightsHash,
        preset: source.preset,
        artifactId,
        sha256,
        sizeBytes,
        ...parents,
        lineageHash: lineageHashOf(tx, { sha256, spec, ...parents }),
        createdAt: Date.now(),
      })
      .returning()
      .get();
    writeAudit(tx, actor, {
      action: 'describeModelVersion',
      target: { type: 'ModelVersion', id },
      detail: { name: row.name, number: version.number, from: source.number },
    });
    return { model: row, version };
  });
}

/** Throws an InputError where the labels or the preprocessing do not fit the file. */
function fitting<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof JobFailure)) throw error;
    refuse('INVALID', error.code === 'PREPROCESS_INVALID' ? 'preprocess' : 'labels', error.message);
  }
}

type Described = Pick<ModelVersion, 'labelsJson' | 'preprocessJson'>;

/** A live version of the model with the same bytes that is described like this. */
function findSame(tx: Queryable, { modelId, sha256 }: ModelVersion, described: Described): ModelVersion | undefined {
  const of = ({ labelsJson, preprocessJson }: Described) => canonicalJson({ labelsJson, preprocessJson });
  return tx
    .select()
    .from(modelVersion)
    .where(
      and(
        eq(modelVersion.modelId, modelId),
        eq(modelVersion.sha256, String(sha256)),
        eq(modelVersion.state, 'READY'),
        isNull(modelVersion.deletedAt),
      ),
    )
    .all()
    .find((version) => of(version) === of(described));
}
