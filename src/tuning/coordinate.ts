/**
 * The job TUNE. It holds no slot and has no process: it moves in the transactions that end its children, so that whatever is killed, the rows
 * of the study say how it continues. Its children are ASK jobs, which propose trials, and TRAIN jobs, which run them. Where latency is an
 * objective, a MEASURE job comes before all of them.
 *
 *   ASK ends      its proposals become trials, and those that are new start
 *   a rung ends   when no child is at work: the weak trials are STOPPED, the others continue from their checkpoints
 *   trials end    ask for the next generation; after the last one the best are registered and converted
 *
 * Nothing is decided while a child is at work. So the trials depend on the seed and on results, and not on which training ends first.
 */
import { and, desc, eq } from 'drizzle-orm';
import type { Queryable } from '../db.ts';
import { refuse } from '../errors.ts';
import { enqueue } from '../jobs/enqueue.ts';
import { appendEvent } from '../jobs/events.ts';
import { age, findJob } from '../jobs/jobs.ts';
import type { CoordinatorEnd, JobKind } from '../jobs/kinds.ts';
import { preprocessOf } from '../jobs/presets.ts';
import { results } from '../jobs/results.ts';
import type { AskResult, Params } from '../jobs/searchSpace.ts';
import { TrainingRuntime } from '../jobs/specs.ts';
import type { Failure } from '../jobs/states.ts';
import { storedSpec } from '../jobs/storedSpec.ts';
import { type Job, job, jobSubject } from '../jobs/tables.ts';
import { dropArtifacts } from '../storage/blobs.ts';
import { requireModel, requireReadyDataset } from '../training/sources.ts';
import type { TrainRequest } from '../training/train.ts';
import { askRequestOf } from './ask.ts';
import { Budget, isSpent } from './budget.ts';
import { appendStudyEvent, recordFront, recordGenerationEnd, recordRegistration, recordStart, recordState } from './events.ts';
import { nextStop, survivorsOf } from './halving.ts';
import { lacksLatencies } from './measure.ts';
import { directionsOf, type ObjectiveName, valuesOf } from './objectives.ts';
import { hashOfTrial, hyperparametersOfTrial, type StudySettings } from './settings.ts';
import { activeChildren, findStudyOf, frontOf, listTrials, ranked, requireStudy, studySettings, trialFailure } from './studies.ts';
import { type Study, study, type Trial, type TrialOutcome, trial } from './tables.ts';

/** Failures that the hyperparameters of a trial cause: it counts as worse than any other, and the study continues. */
const ownFaults = ['DIVERGED', 'OUT_OF_MEMORY', 'COMPILE_FAILED'];

const noAttempts = () => {
  throw new Error('A coordinator has no attempts.');
};

export const tuneJob: JobKind = {
  timeLimitMs: Number.POSITIVE_INFINITY,
  launch: noAttempts,
  finish: noAttempts,

  onChildEnded(tx, parent, child) {
    const row = findStudyOf(tx, parent);
    // The child of an earlier job of the study, which was retried or extended meanwhile.
    if (!row || row.jobId !== parent.id) return null;
    const take = child.kind === 'ASK' ? takeProposals : child.kind === 'MEASURE' ? takeLatencies : takeResult;
    const failure = take(tx, row, child);
    return failure ? { state: 'FAILED', failure } : advance(tx, requireStudy(tx, row.id), parent);
  },

  onChildStarted: (tx, _parent, child) => recordStart(tx, child),

  onMoved(tx, moved) {
    const row = findStudyOf(tx, moved);
    if (row?.jobId === moved.id) recordState(tx, row.id, moved);
  },

  redo(tx, retried) {
    const row = findStudyOf(tx, retried);
    if (!row || row.jobId !== retried.retryOfId) refuse('INVALID', 'jobId', 'The study has a newer job: retry that one.');
    requireModel(tx, row.modelId, 'jobId');
    requireReadyDataset(tx, row.datasetVersionId);
    continueIn(tx, row, retried);
  },
};

/** Continues a study in another job than the one that has ended. */
export function continueIn(tx: Queryable, { id }: Study, parent: Job): void {
  tx.update(study).set({ jobId: parent.id }).where(eq(study.id, id)).run();
  const row = requireStudy(tx, id);
  recordState(tx, id, parent);
  for (const one of listTrials(tx, row.id)) {
    const search = one.outcome === null && one.jobId !== null ? findJob(tx, one.jobId) : undefined;
    if (search?.state === 'SUCCEEDED') recordResult(tx, row, one, search);
    else if (search) trainAgain(tx, row, parent, one, search);
    const final = one.finalJobId === null ? undefined : findJob(tx, one.finalJobId);
    if (!final) continue;
    if (final.state !== 'SUCCEEDED') update(tx, one, { finalJobId: null });
    const conversion = conversionOf(tx, final);
    if (conversion?.state === 'CANCELLED') retryConversion(tx, parent, conversion);
  }
  recordFront(tx, row);
  // Where nothing is left to do, the end of an empty ASK ends the job: this transaction only begins it.
  if (advance(tx, row, parent)) enqueueAsk(tx, row, parent, 0);
}

/** What the ended children make possible. Returns the study's end when there is nothing left to do. */
function advance(tx: Queryable, row: Study, parent: Job): CoordinatorEnd | null {
  if (activeChildren(tx, parent.id) > 0) return null;
  const settings = studySettings(row);
  const open = listTrials(tx, row.id).filter(({ outcome, copyOf }) => outcome === null && copyOf === null);
  // Trials to begin with start together with the first proposals, which a study that was cancelled too early has not got.
  if (lacksLatencies(row) || open.some(({ jobId }) => jobId === null)) {
    begin(tx, row, parent);
    return null;
  }
  if (open.length > 0) {
    const survivors = settings.halving ? survivorsOf(open.map(ranked), settings.halving, directionsOf(settings.objectives)) : open;
    const numbers = new Set(survivors.map(({ number }) => number));
    for (const one of open) {
      if (numbers.has(one.number)) startTrial(tx, row, settings, parent, one);
      else endTrial(tx, row, one, 'STOPPED', one.valuesJson);
    }
    recordFront(tx, row);
    return null;
  }
  copyResults(tx, row);
  const trials = listTrials(tx, row.id);
  recordGenerationEnd(tx, row, trials);
  const front = frontOf(settings, trials);
  dropCheckpoints(tx, trials, front);
  const budget = Budget.parse(storedSpec(parent));
  const inAll = isSpent(budget, settings.objectives[0] as ObjectiveName, front[0], Date.now() - parent.createdAt)
    ? trials.length
    : row.trials;
  if (inAll < row.trials) tx.update(study).set({ trials: inAll }).where(eq(study.id, row.id)).run();
  const wanted = Math.min(settings.population - (trials.length % settings.population), inAll - trials.length);
  if (wanted > 0 || row.askedAt !== trials.length) {
    enqueueAsk(tx, row, parent, Math.max(0, wanted));
    return null;
  }
  const best = front.slice(0, settings.registerMax);
  const missing = best.filter(({ finalJobId }) => finalJobId === null);
  for (const one of missing) {
    const spec = trainSpec(row, settings, one, { modelId: row.modelId, convert: true, stopAfterEpoch: null });
    const { id: finalJobId } = enqueueTraining(tx, row, parent, one, spec);
    update(tx, one, { finalJobId });
  }
  if (missing.length > 0) return null;
  dropCheckpoints(tx, trials, []);
  return { state: 'SUCCEEDED', result: resultOf(tx, row, trials, front) };
}

/** The newest conversion of what a training has registered. */
const conversionOf = (tx: Queryable, { resultJson }: Job): Job | undefined =>
  tx
    .select({ job })
    .from(jobSubject)
    .innerJoin(job, eq(job.id, jobSubject.jobId))
    .where(and(eq(jobSubject.subjectId, String(resultJson?.modelVersionId)), eq(job.kind, 'CONVERT')))
    .orderBy(desc(age))
    .limit(1)
    .get()?.job;

const retryConversion = (tx: Queryable, parent: Job, { id, specJson, specVersion }: Job): Job =>
  enqueue(tx, actorOf(parent), {
    kind: 'CONVERT',
    spec: specJson,
    specVersion,
    priority: parent.priority,
    parentId: parent.id,
    retryOfId: id,
  });

function resultOf(tx: Queryable, row: Study, trials: Trial[], front: Trial[]): Record<string, unknown> {
  const finals = trials.flatMap(({ finalJobId }) => (finalJobId ? (findJob(tx, finalJobId) ?? []) : []));
  const made = finals.flatMap((one) => [one.resultJson, conversionOf(tx, one)?.resultJson]);
  const modelVersionIds = made.flatMap((result) => (result?.modelVersionId ? [result.modelVersionId] : []));
  return { studyId: row.id, trials: trials.length, front: front.map(({ number }) => number), modelVersionIds };
}

// --------------------------------------------------------------------------------------------------------- proposals

/** The first child of a study: it measures latencies, or proposes the rest of the first generation. */
export function begin(tx: Queryable, row: Study, parent: Job): void {
  if (lacksLatencies(row)) {
    enqueue(tx, actorOf(parent), { kind: 'MEASURE', spec: { studyId: row.id }, priority: parent.priority, parentId: parent.id });
    return;
  }
  const known = listTrials(tx, row.id).length;
  enqueueAsk(tx, row, parent, Math.min(studySettings(row).population, row.trials) - known);
}

function takeLatencies(tx: Queryable, row: Study, child: Job): Failure | null {
  if (child.state !== 'SUCCEEDED') {
    const why = child.failureMessage ?? 'The job that measures it was cancelled.';
    return { code: 'MEASURE_FAILED', message: `The latency could not be measured: ${why} Retry this job.` };
  }
  const { latencies } = child.resultJson as { latencies: Record<number, number> };
  tx.update(study).set({ latenciesJson: latencies }).where(eq(study.id, row.id)).run();
  return null;
}

function enqueueAsk(tx: Queryable, row: Study, parent: Job, count: number): void {
  const known = listTrials(tx, row.id).length;
  const generation = Math.floor(known / studySettings(row).population);
  enqueue(tx, actorOf(parent), {
    kind: 'ASK',
    spec: { studyId: row.id, generation, count },
    priority: parent.priority,
    parentId: parent.id,
  });
}

function takeProposals(tx: Queryable, row: Study, child: Job): Failure | null {
  if (child.state !== 'SUCCEEDED') {
    const why = child.failureMessage ?? 'The job that proposes them was cancelled.';
    return { code: 'ASK_FAILED', message: `The next trials could not be proposed: ${why} Retry this job.` };
  }
  const { generation, count } = askRequestOf(child);
  const { proposals, importance } = child.resultJson as AskResult;
  const parent = findJob(tx, row.jobId) as Job;
  const known = insertTrials(tx, row, proposals, generation);
  const isExhausted = proposals.length < count;
  tx.update(study)
    .set({ askedAt: known - proposals.length, importanceJson: importance, ...(isExhausted ? { trials: known } : {}) })
    .where(eq(study.id, row.id))
    .run();
  const settings = studySettings(row);
  for (const one of listTrials(tx, row.id)) {
    if (one.outcome === null && one.copyOf === null && one.jobId === null) startTrial(tx, row, settings, parent, one);
  }
  return null;
}

/** Inserts trials behind those that there are; returns how many there are then. */
export function insertTrials(tx: Queryable, row: Study, params: Params[], generation: number): number {
  const settings = studySettings(row);
  const trials = listTrials(tx, row.id);
  const firstWith = new Map<string, number>();
  for (const { hash, number } of trials) if (!firstWith.has(hash)) firstWith.set(hash, number);
  for (const [n, paramsJson] of params.entries()) {
    const number = trials.length + n;
    const hash = hashOfTrial(settings, paramsJson);
    tx.insert(trial)
      .values({ studyId: row.id, number, generation, paramsJson, hash, copyOf: firstWith.get(hash) ?? null })
      .run();
    if (!firstWith.has(hash)) firstWith.set(hash, number);
  }
  return trials.length + params.length;
}

// ------------------------------------------------------------------------------------------------------------ trials

/** Trains a trial to its next rung, or to its end. */
function startTrial(tx: Queryable, row: Study, settings: StudySettings, parent: Job, one: Trial): void {
  const { hyperparameters } = hyperparametersOfTrial(settings, one.paramsJson);
  const stopAfterEpoch = nextStop(settings.halving, hyperparameters.epochs, one.epochs);
  const spec = trainSpec(row, settings, one, { modelId: null, convert: false, stopAfterEpoch });
  if (one.jobId === null) {
    update(tx, one, { jobId: enqueueTraining(tx, row, parent, one, spec).id });
    return;
  }
  const { number, generation, valuesJson: values, epochs } = one;
  const { id: jobId } = enqueueChild(tx, parent, spec);
  update(tx, one, { jobId });
  appendStudyEvent(tx, row.id, 'PROMOTION', { number, generation, values, epochs, jobId, stopAfterEpoch });
}

/** The training of a trial that failed or was cancelled with the earlier job of the study. */
function trainAgain(tx: Queryable, row: Study, parent: Job, one: Trial, search: Job): void {
  update(tx, one, { jobId: enqueueTraining(tx, row, parent, one, search.specJson as TrainRequest, search).id });
}

function enqueueTraining(tx: Queryable, row: Study, parent: Job, one: Trial, spec: TrainRequest, retryOf?: Job): Job {
  const made = enqueueChild(tx, parent, spec, retryOf);
  const { number, generation, paramsJson: params } = one;
  const { stopAfterEpoch, modelId } = spec;
  appendStudyEvent(tx, row.id, 'TRIAL_ENQUEUED', {
    ...{ number, generation, params, jobId: made.id },
    ...{ stopAfterEpoch: stopAfterEpoch ?? null, registers: modelId !== null },
  });
  return made;
}

function trainSpec(
  row: Study,
  settings: StudySettings,
  { paramsJson, jobId }: Trial,
  { stopAfterEpoch, ...how }: Pick<TrainRequest, 'modelId' | 'convert' | 'stopAfterEpoch'>,
): TrainRequest {
  const { preset, init, seed, device, cpuThreads } = settings;
  const training = hyperparametersOfTrial(settings, paramsJson);
  const preprocess = preprocessOf(preset, training.hyperparameters);
  const runtime = TrainingRuntime.parse({ stopAfterEpoch });
  const computing = { seed, device, cpuThreads, processes: 1, preprocess, ...runtime };
  return { ...how, datasetVersionId: row.datasetVersionId, ...training, init, resumeOfJobId: jobId, ...computing };
}

const enqueueChild = (tx: Queryable, parent: Job, spec: TrainRequest, retryOf?: Job): Job =>
  enqueue(tx, actorOf(parent), {
    kind: 'TRAIN',
    spec,
    specVersion: retryOf?.specVersion,
    priority: parent.priority,
    parentId: parent.id,
    retryOfId: retryOf?.id,
  });

const actorOf = ({ createdById }: Job) => ({ actorId: createdById, requestId: null });

/** Of a TRAIN or CONVERT job. Only a trial's own job has a result that counts: one that a user repeated has not. */
function takeResult(tx: Queryable, row: Study, child: Job): Failure | null {
  recordRegistration(tx, row.id, child);
  const one = tx
    .select()
    .from(trial)
    .where(and(eq(trial.studyId, row.id), eq(trial.jobId, child.id)))
    .get();
  if (!one || one.outcome !== null) return null;
  if (child.state === 'SUCCEEDED') {
    recordResult(tx, row, one, child);
    recordFront(tx, row);
    return null;
  }
  if (child.state === 'CANCELLED' || ownFaults.includes(child.failureCode ?? '')) {
    endTrial(tx, row, one, 'WORST', null);
    return null;
  }
  const message = `Trial ${one.number} failed with ${child.failureCode}: ${child.failureMessage} Remove the cause, then retry this job: it continues from the trials that have ended.`;
  return { code: 'TRIAL_FAILED', message };
}

function recordResult(tx: Queryable, row: Study, one: Trial, { resultJson, specJson }: Job): void {
  const result = results.TRAIN.parse(resultJson);
  const { hyperparameters, resumeOfJobId } = specJson as TrainRequest;
  const values = valuesOf(studySettings(row).objectives, result, Number(row.latenciesJson?.[hyperparameters.imageSize]));
  // The next rung continues from the newer checkpoint.
  if (resumeOfJobId !== null) dropArtifacts(tx, 'JOB', resumeOfJobId);
  update(tx, one, { epochs: result.epochs });
  if (result.stoppedEarly || result.epochs >= hyperparameters.epochs)
    endTrial(tx, row, { ...one, epochs: result.epochs }, 'COMPLETE', values);
  else {
    update(tx, one, { valuesJson: values });
    appendStudyEvent(tx, row.id, 'RUNG_ENDED', { number: one.number, generation: one.generation, values, epochs: result.epochs });
  }
}

/** Copies have the result of the first trial with the same hyperparameters. */
function copyResults(tx: Queryable, row: Study): void {
  const trials = listTrials(tx, row.id);
  for (const one of trials) {
    const first = one.outcome === null && one.copyOf !== null ? trials[one.copyOf] : undefined;
    if (!first?.outcome) continue;
    update(tx, one, { epochs: first.epochs });
    endTrial(tx, row, { ...one, epochs: first.epochs }, first.outcome, first.valuesJson);
  }
}

function endTrial(tx: Queryable, row: Study, one: Trial, outcome: TrialOutcome, valuesJson: number[] | null): void {
  update(tx, one, { outcome, valuesJson });
  const { number, generation, paramsJson: params, epochs, copyOf } = one;
  appendEvent(tx, row.jobId, 0, { type: 'TRIAL', payload: { number, generation, outcome, values: valuesJson, copyOf } });
  const failure = trialFailure(tx, { ...one, outcome });
  appendStudyEvent(tx, row.id, 'TRIAL_ENDED', { number, generation, params, outcome, failure, values: valuesJson, epochs, copyOf });
}

function update(tx: Queryable, { studyId, number }: Trial, values: Partial<Trial>): void {
  tx.update(trial)
    .set(values)
    .where(and(eq(trial.studyId, studyId), eq(trial.number, number)))
    .run();
}

/** Those that may be registered keep their checkpoints. */
function dropCheckpoints(tx: Queryable, trials: Trial[], kept: Trial[]): void {
  const numbers = new Set(kept.map(({ number }) => number));
  for (const { number, jobId } of trials) if (jobId !== null && !numbers.has(number)) dropArtifacts(tx, 'JOB', jobId);
}
