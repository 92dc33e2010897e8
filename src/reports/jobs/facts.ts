/**
 * The facts of trainings, evaluations, load tests and studies, as the facts of a benchmark's report are: numbers, codes and names, read from stored
 * rows. The same rows give the same facts. What was deleted meanwhile is null.
 */
import { eq } from 'drizzle-orm';
import { findDatasetEver, findVersionEver } from '../../datasets/datasets.ts';
import type { Queryable } from '../../db.ts';
import { findDeploymentEver } from '../../deployments/deployments.ts';
import { type Curve, readCurves } from '../../jobs/curves.ts';
import { lastEvent } from '../../jobs/events.ts';
import { durationOf, findJob, newestAttempts, requireJob } from '../../jobs/jobs.ts';
import { listChildren } from '../../jobs/list.ts';
import { presets, storedHyperparameters } from '../../jobs/presets.ts';
import { results } from '../../jobs/results.ts';
import type { Params } from '../../jobs/searchSpace.ts';
import type { TestTimeAugmentation } from '../../jobs/specs.ts';
import { storedSpec } from '../../jobs/storedSpec.ts';
import type { Job } from '../../jobs/tables.ts';
import { findLoadTest, readRates } from '../../loadTest/loadTests.ts';
import { highestRateOf, isClientLate, isInDeadline, type RateResult } from '../../loadTest/rates.ts';
import type { LoadTestRequest } from '../../loadTest/start.ts';
import { parentsOf } from '../../models/lineage.ts';
import { findModelEver, findModelVersionEver } from '../../models/models.ts';
import type { ModelVersion } from '../../models/tables.ts';
import { blobPath, type StorageServices } from '../../storage/blobs.ts';
import { artifact } from '../../storage/tables.ts';
import type { EvaluateRequest } from '../../training/evaluate.ts';
import { findEvaluationOf } from '../../training/evaluations.ts';
import { ConversionGate } from '../../training/gates.ts';
import type { TrainRequest } from '../../training/train.ts';
import { activeParams, type StudySettings } from '../../tuning/settings.ts';
import { findStudyOf, frontOf, listTrials, studySettings, trialState, type trialStates } from '../../tuning/studies.ts';
import type { Study } from '../../tuning/tables.ts';
import type { EvaluationDetail } from './detail.ts';
import { type FindingFacts, findingSource, type PictureSource } from './findings.ts';

/** Points of a curve, and child jobs: a training has one, its conversion. */
const pointsMax = 1000;
const childrenMax = 20;

const isoOf = (at: number | null): string | null => (at === null ? null : new Date(at).toISOString());

function jobFacts(db: Queryable, job: Job) {
  return {
    jobId: job.id,
    state: job.state,
    failure: job.failureCode === null ? null : { code: job.failureCode, message: job.failureMessage ?? '' },
    createdAt: isoOf(job.createdAt),
    startedAt: isoOf(job.startedAt),
    endedAt: isoOf(job.endedAt),
    durationMs: durationOf(db, job.id),
    attempts: newestAttempts(db, job.id).map(
      ({ number, state, startedAt, durationMs, charged, resumedJson, deviceJson, environmentJson }) => ({
        number,
        state,
        startedAt: isoOf(startedAt),
        durationMs,
        charged,
        resumed: resumedJson,
        device: deviceJson,
        environment: environmentJson,
      }),
    ),
  };
}
export type JobFacts = ReturnType<typeof jobFacts>;

function datasetFacts(db: Queryable, versionId: string) {
  const version = findVersionEver(db, versionId);
  const dataset = version && findDatasetEver(db, version.datasetId);
  return {
    versionId,
    name: dataset?.name ?? null,
    number: version?.number ?? null,
    contentHash: version?.contentHash ?? null,
    classes: version?.classesJson?.length ?? null,
    images: version?.countsJson?.images ?? null,
  };
}
export type DatasetFacts = ReturnType<typeof datasetFacts>;

const nameFacts = (db: Queryable, { id, modelId, number }: ModelVersion) => ({
  versionId: id,
  name: findModelEver(db, modelId)?.name ?? null,
  number,
});

function versionFacts(db: Queryable, id: string) {
  const version = findModelVersionEver(db, id);
  if (!version) return null;
  const { format, precision, origin, preset, sha256, sizeBytes, weightsHash, lineageHash } = version;
  return {
    ...nameFacts(db, version),
    format,
    precision,
    origin,
    preset,
    sha256,
    sizeBytes,
    weightsHash,
    lineageHash,
    parents: parentsOf(db, version).map((parent) => ({ ...nameFacts(db, parent), origin: parent.origin, lineageHash: parent.lineageHash })),
  };
}
export type VersionFacts = NonNullable<ReturnType<typeof versionFacts>>;

export interface EvaluationFacts {
  split: string;
  engine: string;
  testTimeAugmentation: TestTimeAugmentation;
  metrics: Record<string, number>;
  /** Null where an earlier version of the program has measured it. */
  findings: FindingFacts | null;
  /** Null where the file was deleted with the model version. */
  detail: EvaluationDetail | null;
}

/** `file` is what its detail is read from: null where it was deleted with the model version. `pictures`: of the images in its findings. */
export type EvaluationSource = Omit<EvaluationFacts, 'detail'> & { file: string | null; pictures: PictureSource | null };

function evaluationSource(services: StorageServices, jobId: string): EvaluationSource | null {
  const { config, db } = services;
  const found = findEvaluationOf(db, jobId);
  if (!found) return null;
  const { split, engine, testTimeAugmentation, metricsJson, artifactId } = found;
  const noted = findingSource(services, found);
  const file = artifactId && db.select().from(artifact).where(eq(artifact.id, artifactId)).get();
  return {
    split,
    engine,
    testTimeAugmentation,
    metrics: metricsJson,
    findings: noted?.findings ?? null,
    file: file ? blobPath(config.dataDir, file.sha256) : null,
    pictures: noted?.pictures ?? null,
  };
}

/** The conversion that a training has asked for, with what its gate has measured. Of a training that a study registers, it is the study's child. */
function conversionFacts(db: Queryable, { id, resultJson }: Job) {
  const job =
    listChildren(db, id, childrenMax).findLast(({ kind }) => kind === 'CONVERT') ?? findJob(db, String(resultJson?.conversionJobId));
  if (!job) return null;
  const measured = ConversionGate.safeParse(lastEvent(db, job.id, 'GATE')?.payloadJson.numbers);
  const version = job.resultJson && versionFacts(db, String(job.resultJson.modelVersionId));
  return {
    state: job.state,
    failure: job.failureCode === null ? null : { code: job.failureCode, message: job.failureMessage ?? '' },
    gate: measured.success ? measured.data : null,
    version,
  };
}
export type ConversionFacts = NonNullable<ReturnType<typeof conversionFacts>>;

export interface TrainingFacts extends JobFacts {
  kind: 'TRAIN';
  model: string | null;
  task: string;
  preset: string;
  dataset: DatasetFacts;
  init: { from: string; version: VersionFacts | null };
  seed: number;
  device: string;
  cpuThreads: number;
  processes: number;
  hyperparameters: Record<string, unknown>;
  result: { epochs: number; bestEpoch: number; stoppedEarly: boolean } | null;
  version: VersionFacts | null;
  conversion: ConversionFacts | null;
  evaluation: EvaluationFacts | null;
  curves: Curve[];
}

/** The facts but for what is read from the file of the evaluation: `exportSources.ts` reads it in its thread. */
type SourceOf<Facts extends { evaluation: unknown }> = Omit<Facts, 'evaluation'> & { evaluation: EvaluationSource | null };
export type TrainingSource = SourceOf<TrainingFacts>;
export type EvaluateSource = SourceOf<EvaluateFacts>;

/** `request` is that of `inTurn`: a training may have many points. */
export async function trainingSource(services: StorageServices, request: object, job: Job): Promise<TrainingSource> {
  const { db } = services;
  const { preset, hyperparameters, init, seed, device, cpuThreads, processes, modelId, datasetVersionId } = storedSpec(job) as TrainRequest;
  const ended = results.TRAIN.pick({ epochs: true, bestEpoch: true, stoppedEarly: true }).safeParse(job.resultJson);
  return {
    kind: 'TRAIN',
    ...jobFacts(db, job),
    model: modelId === null ? null : (findModelEver(db, modelId)?.name ?? null),
    task: presets[preset].task,
    preset,
    dataset: datasetFacts(db, datasetVersionId),
    init: { from: init.from, version: 'modelVersionId' in init ? versionFacts(db, init.modelVersionId) : null },
    seed,
    device,
    cpuThreads,
    processes,
    hyperparameters: storedHyperparameters(preset, hyperparameters),
    result: ended.data ?? null,
    version: job.resultJson?.modelVersionId ? versionFacts(db, String(job.resultJson.modelVersionId)) : null,
    conversion: conversionFacts(db, job),
    evaluation: evaluationSource(services, job.id),
    curves: await readCurves(db, request, job.id, null, pointsMax),
  };
}

export interface EvaluateFacts extends JobFacts {
  kind: 'EVALUATE';
  version: VersionFacts | null;
  dataset: DatasetFacts;
  split: string;
  evaluation: EvaluationFacts | null;
}

export function evaluateSource(services: StorageServices, job: Job): EvaluateSource {
  const { db } = services;
  const { modelVersionId, datasetVersionId, split } = storedSpec(job) as EvaluateRequest;
  return {
    kind: 'EVALUATE',
    ...jobFacts(db, job),
    version: versionFacts(db, modelVersionId),
    dataset: datasetFacts(db, datasetVersionId),
    split,
    evaluation: evaluationSource(services, job.id),
  };
}

/** A rate with what its numbers say. */
export type RateFacts = RateResult & { meetsDeadline: boolean; clientLate: boolean };

export interface LoadTestFacts extends JobFacts {
  kind: 'LOAD_TEST';
  deployment: string | null;
  version: VersionFacts | null;
  /** What was driven, and what that gave; null while the job has not ended. */
  measured: {
    revision: number;
    deadlineMs: number;
    secondsPerRate: number;
    seed: number;
    capacityPerSecond: number;
    highestRate: number | null;
    rates: RateFacts[];
  } | null;
}

/** What a job is reported from. A load test and a study have no file. */
export type JobSource = TrainingSource | EvaluateSource | LoadTestFacts | StudyFacts;

export function loadTestFacts(db: Queryable, job: Job): LoadTestFacts {
  const { deploymentId, modelVersionId } = storedSpec(job) as LoadTestRequest;
  const found = findLoadTest(db, job.id);
  const rates = found ? readRates(db, job.id) : [];
  return {
    kind: 'LOAD_TEST',
    ...jobFacts(db, job),
    deployment: findDeploymentEver(db, deploymentId)?.name ?? null,
    version: versionFacts(db, modelVersionId),
    measured: found
      ? {
          revision: found.revision,
          deadlineMs: found.deadlineMs,
          secondsPerRate: found.secondsPerRate,
          seed: found.seed,
          capacityPerSecond: found.capacityPerSecond,
          highestRate: highestRateOf(rates),
          rates: rates.map((rate) => ({ ...rate, meetsDeadline: isInDeadline(rate), clientLate: isClientLate(rate) })),
        }
      : null,
  };
}

export interface TrialFacts {
  number: number;
  generation: number;
  state: keyof typeof trialStates;
  copyOf: number | null;
  epochs: number;
  /** Of the objectives. */
  values: number[] | null;
  /** Without those that have no effect. */
  params: Params;
}

export interface StudyFacts extends JobFacts, Omit<StudySettings, 'begin' | 'init'> {
  kind: 'TUNE';
  studyId: string;
  model: string | null;
  dataset: DatasetFacts;
  trialsWanted: number;
  trials: TrialFacts[];
  /** Numbers of the trials that no other one beats, the best by the first objective first. */
  front: number[];
  importance: { name: string; share: number }[];
  /** What trials have become at the end. */
  registered: { trial: number; version: VersionFacts | null; conversion: ConversionFacts | null }[];
}

/** Of the newest job of the study: it may have been retried or extended. */
export function studyFacts(db: Queryable, { kind, specJson, parentId }: Job): StudyFacts {
  const row = findStudyOf(db, { kind, specJson, parentId }) as Study;
  const job = requireJob(db, row.jobId);
  const { begin, init, ...settings } = studySettings(row);
  const trials = listTrials(db, row.id);
  return {
    kind: 'TUNE',
    ...jobFacts(db, job),
    // It has no attempts, whose time would count.
    durationMs: (job.endedAt ?? Date.now()) - job.createdAt,
    studyId: row.id,
    model: findModelEver(db, row.modelId)?.name ?? null,
    dataset: datasetFacts(db, row.datasetVersionId),
    ...settings,
    trialsWanted: row.trials,
    trials: trials.map((one) => ({
      number: one.number,
      generation: one.generation,
      state: trialState(db, one),
      copyOf: one.copyOf,
      epochs: one.epochs,
      values: one.valuesJson,
      params: activeParams(settings.space, one.paramsJson),
    })),
    front: frontOf(settings, trials).map(({ number }) => number),
    importance: row.importanceJson,
    registered: trials.flatMap(({ number, finalJobId }) => {
      const training = finalJobId === null ? undefined : findJob(db, finalJobId);
      const id = training?.resultJson?.modelVersionId;
      return training && id ? [{ trial: number, version: versionFacts(db, String(id)), conversion: conversionFacts(db, training) }] : [];
    }),
  };
}
