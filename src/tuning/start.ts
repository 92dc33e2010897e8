import { randomUUIDv7 } from 'node:crypto';
import { eq } from 'drizzle-orm';
import { z } from 'zod';
import { type Actor, writeAudit } from '../accounts/audit.ts';
import { inTransaction, type Queryable } from '../db.ts';
import { parseInput, refuse } from '../errors.ts';
import { announceJob, enqueue, findByIdempotencyKey } from '../jobs/enqueue.ts';
import { setHeld } from '../jobs/hold.ts';
import { requireJob } from '../jobs/jobs.ts';
import type { JobServices } from '../jobs/kinds.ts';
import { checkpointBytes, presets } from '../jobs/presets.ts';
import { cpuThreadsOf } from '../jobs/python.ts';
import { type Params, trialsMax } from '../jobs/searchSpace.ts';
import { isFinal } from '../jobs/states.ts';
import { findModelByName, insertModel } from '../models/models.ts';
import { Name } from '../naming.ts';
import { requireDisk } from '../storage/disk.ts';
import { compilerProblem, requireCompilable } from '../training/compile.ts';
import { requirePublicWeights } from '../training/publicWeights.ts';
import { requireModel, requireReadyDataset, requireTask } from '../training/sources.ts';
import { trainingBytes } from '../training/train.ts';
import { begin, continueIn, insertTrials } from './coordinate.ts';
import { appendStudyEvent, recordState } from './events.ts';
import { planOf, type StudyPlan } from './plan.ts';
import { Generations, gridPoints, mayBe, StartTuningInput, type StudySettings, settingsOf } from './settings.ts';
import { frontOf, listTrials, requireStudy, studySettings } from './studies.ts';
import { type Study, study } from './tables.ts';

const generationsDefault = 5;

export interface StartedStudy {
  /** Null of a dry run. */
  study: Study | null;
  plan: StudyPlan;
}

/** Starts a study; its model is made when there is none of that name. A dry run says only how much work it would be. */
export async function startTuning(services: JobServices, actor: Actor, raw: unknown): Promise<StartedStudy> {
  const { db, bus, config } = services;
  const input = parseInput(StartTuningInput.extend({ modelName: Name }), raw);
  const settings = settingsOf(input, cpuThreadsOf(config), bestOf(db, input.beginStudyId ?? null));
  const trials = trialsOf(input, settings);
  if (settings.init.from === 'PRETRAINED') await requirePublicWeights(services, settings.preset);
  if (mayBe('compile', settings).includes(true))
    requireCompilable(
      { compile: true },
      'compile' in settings.fixed ? 'fixed' : 'space',
      1,
      await compilerProblem(services, settings.device),
    );
  const { task } = presets[settings.preset];
  const dataset = requireReadyDataset(db, input.datasetVersionId);
  requireTask(db, dataset, task);
  if (!dataset.countsJson?.images.val)
    refuse('INVALID', 'datasetVersionId', 'The dataset version has no validation images: trials are judged by them.');
  const found = findModelByName(db, input.modelName);
  if (found && found.task !== task) refuse('INVALID', 'modelName', `The model ${input.modelName} is for ${found.task}.`);
  const plan = planOf(db, settings, dataset.id, trials, config.slots);
  if (input.dryRun) return { study: null, plan };
  // Trainings that run, and the checkpoint that each trial keeps.
  const { preset, population } = settings;
  await requireDisk(services, config.slots * trainingBytes(preset) + population * checkpointBytes(preset));
  const started = inTransaction(db, (tx) => insertStudy(tx, actor, input, settings, trials));
  announceJob(bus, requireJob(db, started.jobId));
  return { study: started, plan };
}

/** The hyperparameters of a study's front, best first. */
function bestOf(db: Queryable, studyId: string | null): Params[] {
  if (studyId === null) return [];
  const front = frontOf(studySettings(requireStudy(db, studyId)), listTrials(db, studyId));
  if (front.length === 0) refuse('INVALID', 'beginStudyId', 'None of its trials has a result yet: wait for its first generation.');
  return front.map(({ paramsJson }) => paramsJson);
}

/** Trials in all. */
function trialsOf({ trials, generations, population }: StartTuningInput, { sampler, space }: StudySettings): number {
  if (trials && generations) refuse('INVALID', 'trials', 'Say `trials` or `generations`, not both.');
  const grid = Math.min(gridPoints(space), trialsMax);
  const total = trials ?? (generations ? generations * population : sampler === 'GRID' ? grid : generationsDefault * population);
  if (total > trialsMax)
    refuse('LIMIT', trials ? 'trials' : 'generations', `A study has at most ${trialsMax} trials; this would be ${total}.`);
  return total;
}

function insertStudy(tx: Queryable, actor: Actor, input: StartTuningInput, settings: StudySettings, trials: number): Study {
  const { modelName, datasetVersionId, priority, hoursMax, target } = input;
  const earlier = findByIdempotencyKey(tx, actor, { kind: 'TUNE', input });
  if (earlier) return requireStudy(tx, (earlier.specJson as { studyId: string }).studyId);
  const { task } = presets[settings.preset];
  const { id: modelId } =
    findModelByName(tx, modelName) ?? insertModel(tx, { name: modelName, task, notes: '', createdById: actor.actorId });
  const id = randomUUIDv7();
  const coordinator = enqueue(tx, actor, {
    kind: 'TUNE',
    spec: { studyId: id, modelId, datasetVersionId, hoursMax, target },
    input,
    priority,
    coordinates: true,
  });
  const row = tx
    .insert(study)
    .values({
      id,
      jobId: coordinator.id,
      modelId,
      datasetVersionId,
      settingsJson: settings,
      trials,
      importanceJson: [],
      createdAt: Date.now(),
    })
    .returning()
    .get();
  recordState(tx, id, coordinator);
  insertTrials(tx, row, settings.begin.slice(0, trials), 0);
  begin(tx, row, coordinator);
  return requireStudy(tx, id);
}

/** More generations. A study that runs makes them when it comes to its end; one that has ended continues in another job. */
export function extendStudy({ db, bus }: JobServices, actor: Actor, id: string, wanted: number): Study {
  const { generations } = parseInput(z.object({ generations: Generations }), { generations: wanted });
  const extended = inTransaction(db, (tx) => {
    const row = requireStudy(tx, id);
    const current = requireJob(tx, row.jobId);
    if (current.state === 'FAILED' || current.state === 'CANCELLED' || current.state === 'CANCELLING')
      refuse('INVALID', 'studyId', `The study is ${current.state}: retry its job first.`);
    const trials = row.trials + generations * studySettings(row).population;
    if (trials > trialsMax) refuse('LIMIT', 'generations', `A study has at most ${trialsMax} trials; this would be ${trials}.`);
    tx.update(study).set({ trials }).where(eq(study.id, id)).run();
    appendStudyEvent(tx, id, 'EXTENDED', { generations, trialsWanted: trials });
    writeAudit(tx, actor, { action: 'extendStudy', target: { type: 'Study', id }, detail: { trials } });
    if (current.state === 'SUCCEEDED') {
      requireModel(tx, row.modelId, 'studyId');
      requireReadyDataset(tx, row.datasetVersionId);
      const { specJson, specVersion, priority } = current;
      // What has ended it is not to end it again at once.
      const spec = { ...(specJson as object), hoursMax: null, target: null };
      const next = enqueue(tx, actor, { kind: 'TUNE', spec, specVersion, priority, coordinates: true });
      continueIn(tx, row, next);
    }
    return requireStudy(tx, id);
  });
  announceJob(bus, requireJob(db, extended.jobId));
  return extended;
}

/** Holds a study with the jobs that it has made, or resumes them. Trainings that run are suspended at a checkpoint. */
export function pauseStudy({ db, bus }: JobServices, actor: Actor, id: string, paused: boolean): Study {
  const row = inTransaction(db, (tx) => {
    const found = requireStudy(tx, id);
    const { state, held } = requireJob(tx, found.jobId);
    if (isFinal(state)) refuse('INVALID', 'studyId', `The study has ended already: it is ${state}.`);
    if (paused && state === 'CANCELLING') refuse('INVALID', 'studyId', 'The study is being cancelled.');
    if (held === paused) return found;
    setHeld(tx, found.jobId, paused);
    recordState(tx, id, requireJob(tx, found.jobId));
    writeAudit(tx, actor, { action: paused ? 'pauseStudy' : 'resumeStudy', target: { type: 'Study', id } });
    return requireStudy(tx, id);
  });
  announceJob(bus, requireJob(db, row.jobId));
  return row;
}
