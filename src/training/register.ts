import { randomUUIDv7 } from 'node:crypto';
import { link, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { and, eq, isNull } from 'drizzle-orm';
import type { Queryable } from '../db.ts';
import { noteLessAccurate } from '../history/regressions.ts';
import { type AttemptContext, type AttemptOutcome, JobFailure, type JobServices } from '../jobs/kinds.ts';
import { type ClassificationFindings, type DetectionFindings, Evaluation, results, WeightsMeta } from '../jobs/results.ts';
import { gateFailures } from '../models/gate.ts';
import { lineageHashOf } from '../models/lineage.ts';
import { limitsFor, loadOnce } from '../models/load.ts';
import { nextNumber } from '../models/models.ts';
import { onnxSignature } from '../models/signature.ts';
import { type ModelVersion, modelVersion } from '../models/tables.ts';
import { insertArtifact, type StoredBlob, storeFile } from '../storage/blobs.ts';
import type { PreprocessSpec } from '../vision/spec.ts';
import type { Findings } from './evaluations.ts';
import { comparisonsOf, type GateNumbers, gateFailure } from './gates.ts';
import { type EvaluationRow, evaluation, evaluationFindings, evaluationMetric } from './tables.ts';

type Made = AttemptOutcome['artifacts'][number];

/** Stores a file of the child, which may still read it: the store gets a second name of it. Its bytes must be those it told of. */
export async function storeMade(services: JobServices, { workDir }: AttemptContext, made: Made): Promise<StoredBlob> {
  const own = join(workDir, String(made.file));
  const copy = `${own}.store`;
  await rm(copy, { force: true });
  await link(own, copy);
  const stored = await storeFile(services, copy);
  if (stored.sha256 !== made.sha256) throw new Error(`${made.file} is not what the child said that it had written.`);
  return stored;
}

/** What a version was made from. */
export interface VersionOrigin {
  modelId: string;
  jobId: string;
  datasetVersionId: string | null;
  parentId: string | null;
  labels: string[];
  /** Null where the file says it itself. */
  preprocess: PreprocessSpec | null;
  /** What was asked for, without ids and paths. */
  lineageSpec: unknown;
}

/** Stores trained weights and the training's last checkpoint; the returned function registers them as a model version. */
export async function acceptCheckpoint(
  services: JobServices,
  attempt: AttemptContext,
  outcome: AttemptOutcome,
  origin: VersionOrigin & { preprocess: PreprocessSpec },
): Promise<(tx: Queryable) => ModelVersion> {
  const weights = requireMade(outcome, 'WEIGHTS');
  const checkpoint = requireMade(outcome, 'CHECKPOINT');
  const meta = WeightsMeta.parse(weights.meta);
  const storedWeights = await storeMade(services, attempt, weights);
  const storedCheckpoint = await storeMade(services, attempt, checkpoint);
  return (tx) => {
    // Earlier versions of the program registered it before the job had ended.
    const isMade = and(eq(modelVersion.jobId, origin.jobId), eq(modelVersion.format, 'CHECKPOINT'), isNull(modelVersion.deletedAt));
    const row =
      tx.select().from(modelVersion).where(isMade).get() ??
      insertVersion(tx, origin, storedWeights, 'WEIGHTS', `${meta.preset}.safetensors`, {
        format: 'CHECKPOINT',
        precision: 'FP32',
        origin: 'TRAINED',
        preset: meta.preset,
        weightsHash: meta.weightsHash,
        signatureJson: meta,
        preprocessJson: origin.preprocess,
        labelsJson: origin.labels,
        gateJson: null,
      });
    const owner = { ownerType: 'MODEL_VERSION', ownerId: row.id } as const;
    const { file, meta: metaJson } = checkpoint;
    insertArtifact(tx, storedCheckpoint, { ...owner, kind: 'CHECKPOINT', name: String(file), metaJson });
    return row;
  };
}

/** Stores the last checkpoint of a training that registers nothing, as a file of its job: another training may continue from it. */
export async function keepCheckpoint(
  services: JobServices,
  attempt: AttemptContext,
  outcome: AttemptOutcome,
): Promise<(tx: Queryable) => void> {
  const checkpoint = requireMade(outcome, 'CHECKPOINT');
  const stored = await storeMade(services, attempt, checkpoint);
  const owner = { ownerType: 'JOB', ownerId: attempt.job.id } as const;
  return (tx) => insertArtifact(tx, stored, { ...owner, kind: 'CHECKPOINT', name: String(checkpoint.file), metaJson: checkpoint.meta });
}

/** Throws a JobFailure that says by how much the model misses its gate. */
export function requireGate(gate: { numbers: GateNumbers } | undefined): GateNumbers {
  if (!gate) throw new JobFailure('GATE_FAILED', 'The model was not measured.');
  const failure = gateFailure(gate.numbers);
  if (failure) throw new JobFailure(failure.code, failure.message);
  return gate.numbers;
}

/**
 * An ONNX version with the evaluation that its job has made of it, if it has made one. The returned function registers both, and gives the job's
 * result.
 */
export async function acceptEvaluatedOnnx(
  services: JobServices,
  attempt: AttemptContext,
  outcome: AttemptOutcome,
  origin: Parameters<typeof acceptOnnx>[3],
  { kind, datasetVersionId }: { kind: 'CONVERT' | 'COMPRESS'; datasetVersionId: string | null },
): Promise<(tx: Queryable) => Record<string, unknown>> {
  const insertOnnx = await acceptOnnx(services, attempt, outcome, origin);
  const { engine } = results[kind].parse(outcome.result);
  const insertEvaluation =
    engine && datasetVersionId
      ? await acceptEvaluation(services, attempt, requireMade(outcome, 'EVALUATION'), {
          datasetVersionId,
          split: 'val',
          engine,
          testTimeAugmentation: 'NONE',
        })
      : null;
  return (tx) => {
    const { id } = insertOnnx(tx);
    const evaluationId = insertEvaluation?.(tx, id).id ?? null;
    return { ...outcome.result, modelVersionId: id, evaluationId };
  };
}

/**
 * The gate, the load in the serving engine with the probe set, and the files in the store. The returned function registers the ONNX
 * version with its probe set. Of a foreign model a compression may make none: then the engine only loads the file.
 */
async function acceptOnnx(
  services: JobServices,
  attempt: AttemptContext,
  outcome: AttemptOutcome,
  origin: VersionOrigin & { how: 'CONVERTED' | 'OPTIMIZED' },
): Promise<(tx: Queryable) => ModelVersion> {
  const numbers = requireGate(outcome.gates.at(-1));
  const onnx = requireMade(outcome, 'ONNX');
  const probe = origin.how === 'CONVERTED' ? requireMade(outcome, 'PROBE') : findMade(outcome, 'PROBE');
  const served = await loadOnce(
    services.config.dataDir,
    join(attempt.workDir, String(onnx.file)),
    join(attempt.workDir, 'load'),
    limitsFor(onnx.sizeBytes),
    probe && join(attempt.workDir, String(probe.file)),
  );
  const comparisons = comparisonsOf(numbers).map((one, n) => ({ ...one, largestDifference: served.largestDifferences[n] ?? null }));
  const failures = probe ? gateFailures(comparisons) : [];
  if (failures.length > 0)
    throw new JobFailure('GATE_FAILED', `The serving engine computes other outputs for the probe set. ${failures.join(' ')}`);
  const signature = onnxSignature(onnx.meta, { labels: origin.labels, preprocess: origin.preprocess });
  const storedOnnx = await storeMade(services, attempt, onnx);
  const storedProbe = probe && (await storeMade(services, attempt, probe));
  const servingLargestDifference = probe ? Math.max(...(served.largestDifferences as number[])) : null;
  const { inputs: _inputs, outputs: _outputs, ...columns } = signature;
  return (tx) => {
    const row = insertVersion(tx, origin, storedOnnx, 'ONNX', String(onnx.file), {
      ...columns,
      format: 'ONNX',
      origin: origin.how,
      gateJson: { ...numbers, servingEngine: served.engine, servingLargestDifference },
    });
    if (probe && storedProbe) {
      insertArtifact(tx, storedProbe, {
        ownerType: 'MODEL_VERSION',
        ownerId: row.id,
        kind: 'PROBE',
        name: String(probe.file),
        metaJson: probe.meta,
      });
    }
    return row;
  };
}

/** Stores an EVALUATION file; the returned function inserts its row, the only one that the job makes, and notes where it is worse than before. */
export async function acceptEvaluation(
  services: JobServices,
  attempt: AttemptContext,
  made: Made,
  of: Pick<EvaluationRow, 'datasetVersionId' | 'split' | 'engine' | 'testTimeAugmentation'>,
): Promise<(tx: Queryable, modelVersionId: string) => EvaluationRow> {
  const content: unknown = JSON.parse(await readFile(join(attempt.workDir, String(made.file)), 'utf8'));
  const { metrics, findings } = Evaluation.parse(content);
  const findingsJson = withoutMatrix(findings);
  const stored = await storeMade(services, attempt, made);
  return (tx, modelVersionId) => {
    const owner = { ownerType: 'MODEL_VERSION', ownerId: modelVersionId } as const;
    const { id: artifactId } = insertArtifact(tx, stored, { ...owner, kind: 'EVALUATION', name: `evaluation-${of.split}.json` });
    const measured = { modelVersionId, ...of, metricsJson: metrics, artifactId, createdAt: Date.now() };
    const row = tx
      .insert(evaluation)
      .values({ id: randomUUIDv7(), ...measured, jobId: attempt.job.id })
      .onConflictDoUpdate({ target: evaluation.jobId, set: measured })
      .returning()
      .get();
    insertMetrics(tx, row);
    tx.insert(evaluationFindings)
      .values({ evaluationId: row.id, findingsJson })
      .onConflictDoUpdate({ target: evaluationFindings.evaluationId, set: { findingsJson } })
      .run();
    noteLessAccurate(tx, attempt, row);
    return row;
  };
}

/** A repeated evaluation of a job replaces what the one before has measured. */
function insertMetrics(tx: Queryable, { id: evaluationId, jobId, modelVersionId, metricsJson }: EvaluationRow): void {
  tx.delete(evaluationMetric).where(eq(evaluationMetric.evaluationId, evaluationId)).run();
  const rows = Object.entries(metricsJson).map(([name, value]) => ({ evaluationId, jobId, modelVersionId, name, value }));
  if (rows.length > 0) tx.insert(evaluationMetric).values(rows).run();
}

function withoutMatrix(findings: ClassificationFindings | DetectionFindings): Findings {
  if (!('confusion' in findings)) return findings;
  const { confusion: _, ...others } = findings;
  return others;
}

const findMade = ({ artifacts }: AttemptOutcome, kind: Made['kind']): Made | undefined => artifacts.findLast((one) => one.kind === kind);

export function requireMade(outcome: AttemptOutcome, kind: Made['kind']): Made {
  const made = findMade(outcome, kind);
  if (!made) throw new Error(`The child has made no ${kind}.`);
  return made;
}

type Columns = Pick<
  ModelVersion,
  'format' | 'precision' | 'origin' | 'preset' | 'weightsHash' | 'signatureJson' | 'preprocessJson' | 'labelsJson' | 'gateJson'
>;

function insertVersion(
  tx: Queryable,
  origin: VersionOrigin,
  stored: StoredBlob,
  kind: 'ONNX' | 'WEIGHTS',
  name: string,
  columns: Columns,
): ModelVersion {
  const id = randomUUIDv7();
  const { modelId, jobId, datasetVersionId, parentId } = origin;
  const { id: artifactId } = insertArtifact(tx, stored, { ownerType: 'MODEL_VERSION', ownerId: id, kind, name });
  const lineageHash = lineageHashOf(tx, { sha256: stored.sha256, spec: origin.lineageSpec, parentId, datasetVersionId });
  return tx
    .insert(modelVersion)
    .values({
      id,
      modelId,
      number: nextNumber(tx, modelId),
      state: 'READY',
      artifactId,
      ...stored,
      ...columns,
      lineageHash,
      parentId,
      datasetVersionId,
      jobId,
      createdAt: Date.now(),
    })
    .returning()
    .get();
}
