import { findVersionEver } from '../datasets/datasets.ts';
import { DatasetVersionType } from '../datasets/schema.ts';
import type { Queryable } from '../db.ts';
import { builder, enumValues, idOf } from '../graphql/builder.ts';
import { numberKey, page, pageArgs } from '../graphql/connection.ts';
import { findJob } from '../jobs/jobs.ts';
import { FailureType, JobType } from '../jobs/schema.ts';
import { type Sampler, samplers } from '../jobs/searchSpace.ts';
import { isFinal } from '../jobs/states.ts';
import type { Job } from '../jobs/tables.ts';
import { findModel, findModelVersion } from '../models/models.ts';
import { ModelType, ModelVersionType } from '../models/schema.ts';
import { SearchDimensionType } from '../training/schema.ts';
import { inTurn } from '../turns.ts';
import { type ObjectiveName, objectives } from './objectives.ts';
import { hyperparametersOfTrial } from './settings.ts';
import {
  countEnded,
  findStudy,
  findStudyOf,
  findTrialOf,
  frontOf,
  isStudyKey,
  listStudies,
  listTrials,
  pageTrials,
  studyKey,
  studySettings,
  trainingsOf,
  trialFailure,
  trialState,
  trialStates,
} from './studies.ts';
import type { Study, Trial, TrialOutcome } from './tables.ts';

export const ObjectiveType = builder.enumType('Objective', {
  description: 'What a study optimises.',
  values: Object.fromEntries(Object.entries(objectives).map(([name, { description }]) => [name, { description }])) as Record<
    ObjectiveName,
    { description: string }
  >,
});

export const SamplerType = builder.enumType('Sampler', {
  description: 'What proposes the hyperparameters of the next trials.',
  values: enumValues<Sampler>(samplers),
});

const TrialStateType = builder.enumType('TrialState', {
  description: 'Where a trial stands.',
  values: enumValues<keyof typeof trialStates>(trialStates),
});

export const TrialOutcomeType = builder.enumType('TrialOutcome', {
  description: 'How a trial has ended.',
  values: enumValues<TrialOutcome>({ COMPLETE: trialStates.COMPLETE, STOPPED: trialStates.STOPPED, WORST: trialStates.WORST }),
});

export const trialFailureSays = 'Why its training failed, where it is WORST; null of others, and when the training was cancelled.';

const TrialType = builder.objectRef<Trial>('Trial').implement({
  description: 'One set of hyperparameters of a study, and what a training with them has reached.',
  fields: (t) => ({
    number: t.exposeInt('number', { description: 'From 0, in the order of the proposals.' }),
    generation: t.exposeInt('generation', { description: 'From 0.' }),
    state: t.field({ type: TrialStateType, description: 'Where it stands.', resolve: (one, _a, { db }) => trialState(db, one) }),
    failure: t.field({
      type: FailureType,
      nullable: true,
      description: trialFailureSays,
      resolve: (one, _a, { db }) => trialFailure(db, one),
    }),
    params: t.field({
      type: 'JSON',
      description: 'The value of each dimension of the space, those included that have no effect.',
      resolve: (one) => one.paramsJson,
    }),
    hyperparameters: t.field({
      type: 'JSON',
      description: 'All hyperparameters that it trains with.',
      extensions: { cost: 5 },
      resolve: (one, _a, { db }) => hyperparametersOfTrial(settingsOfTrial(db, one), one.paramsJson).hyperparameters,
    }),
    values: t.floatList({
      nullable: true,
      description:
        'Of the objectives of the study, in their order, at its best epoch so far; null before its first rung, and when it is WORST.',
      resolve: (one) => one.valuesJson,
    }),
    epochs: t.exposeInt('epochs', { description: 'Whole epochs that count so far.' }),
    copyOf: t.exposeInt('copyOf', {
      nullable: true,
      description: 'The first trial with the same hyperparameters, whose result it has; null when it was trained itself.',
    }),
    job: t.field({
      type: JobType,
      nullable: true,
      description: 'Its newest training; null of a copy.',
      resolve: (one, _a, { db }) => (one.jobId ? findJob(db, one.jobId) : null),
    }),
    jobs: t.field({
      type: [JobType],
      description:
        'Its trainings: one for each rung, the first rung first, and the one that registered it. Their metrics, one after the other, are its curves. Empty of a copy, which has those of `copyOf`.',
      extensions: { size: 5 },
      resolve: (one, _a, { db }) => trainingsOf(db, one),
    }),
    modelVersion: t.field({
      type: ModelVersionType,
      nullable: true,
      description: 'The version that was registered of it; null when it was not.',
      resolve: (one, _a, { db }) => {
        const result = one.finalJobId ? findJob(db, one.finalJobId)?.resultJson : null;
        return result ? findModelVersion(db, String(result.modelVersionId)) : null;
      },
    }),
  }),
});

const settingsOfTrial = (db: Queryable, { studyId }: Trial) => studySettings(findStudy(db, studyId) as Study);

const TrialConnection = builder.connectionObject(
  { type: TrialType, name: 'TrialConnection', description: 'A page of trials.' },
  { description: 'A trial in a page.' },
);

const ImportanceType = builder.objectRef<{ name: string; share: number }>('HyperparameterImportance').implement({
  description: 'How much a hyperparameter matters for being among the best trials (PED-ANOVA).',
  fields: (t) => ({
    name: t.exposeString('name', { description: 'The hyperparameter.' }),
    share: t.exposeFloat('share', { description: 'The shares of all hyperparameters add up to 1.' }),
  }),
});

const HalvingType = builder.objectRef<{ firstEpoch: number; reduction: number }>('Halving').implement({
  description: 'How weak trials are stopped early.',
  fields: (t) => ({
    firstEpoch: t.exposeInt('firstEpoch', { description: 'All trials of a generation train so many epochs; then they are compared.' }),
    reduction: t.exposeInt('reduction', {
      description: 'One in so many continues from its checkpoint, and is compared again after so many times the epochs.',
    }),
  }),
});

const SizeLatencyType = builder.objectRef<{ imageSize: number; ms: number }>('ImageSizeLatency').implement({
  description: 'The measured latency of a preset at an image size.',
  fields: (t) => ({
    imageSize: t.exposeInt('imageSize', { description: 'Side of the square input in pixels.' }),
    ms: t.exposeFloat('ms', { description: 'Milliseconds for one image: the median over the rounds of the measurement.' }),
  }),
});

const isPaused = ({ held, state }: Job) => held && !isFinal(state);

const jobOf = (db: Queryable, { jobId }: Study): Job => findJob(db, jobId) as Job;

export const StudyType = builder.node(builder.objectRef<Study>('Study'), {
  description: 'A search for hyperparameters: trials of a preset on a dataset version, and the best of them.',
  id: { resolve: (s) => s.id, description: 'Opaque id.' },
  loadOne: (id, { db }) => findStudy(db, id),
  authScopes: { can: 'READ' },
  fields: (t) => ({
    job: t.field({
      type: JobType,
      description:
        'The job that coordinates the study: the newest one if it was retried or extended. `studyEvents` follows the study over all of them.',
      resolve: (s, _a, { db }) => jobOf(db, s),
    }),
    paused: t.boolean({ description: 'Whether it was paused: its jobs wait.', resolve: (s, _a, { db }) => isPaused(jobOf(db, s)) }),
    model: t.field({
      type: ModelType,
      nullable: true,
      description: 'The model that the best trials become versions of; null when it was deleted.',
      resolve: (s, _a, { db }) => findModel(db, s.modelId),
    }),
    datasetVersion: t.field({
      type: DatasetVersionType,
      nullable: true,
      description: 'What the trials learn from.',
      resolve: (s, _a, { db }) => findVersionEver(db, s.datasetVersionId),
    }),
    preset: t.string({ description: 'Name of the preset.', resolve: (s) => studySettings(s).preset }),
    sampler: t.field({ type: SamplerType, description: 'What proposes the trials.', resolve: (s) => studySettings(s).sampler }),
    objectives: t.field({
      type: [ObjectiveType],
      description: 'What it optimises; the order of the `values` of a trial.',
      resolve: (s) => studySettings(s).objectives,
    }),
    space: t.field({
      type: [SearchDimensionType],
      description: 'What it searches.',
      extensions: { size: 10 },
      resolve: (s) => studySettings(s).space,
    }),
    fixed: t.field({
      type: 'JSON',
      description: 'Hyperparameters that differ from the defaults in every trial.',
      resolve: (s) => studySettings(s).fixed,
    }),
    population: t.int({ description: 'Trials of a generation.', resolve: (s) => studySettings(s).population }),
    seed: t.field({ type: 'SafeInt', description: 'Seed of the proposals and of each training.', resolve: (s) => studySettings(s).seed }),
    halving: t.field({
      type: HalvingType,
      nullable: true,
      description: 'How weak trials are stopped early; null: all train to their end.',
      resolve: (s) => studySettings(s).halving,
    }),
    trialsWanted: t.int({ description: 'Trials that it makes in all.', resolve: (s) => s.trials }),
    trialsEnded: t.int({
      description: 'Trials that have ended.',
      resolve: (s, _a, { db }) => countEnded(db, s.id),
    }),
    trials: t.field({
      type: TrialConnection,
      description: 'Its trials, by number; or the best first by an objective, those without values last.',
      args: { ...pageArgs(), orderBy: t.arg({ type: ObjectiveType, description: 'One of its objectives; without it by number.' }) },
      resolve: (s, { orderBy, ...args }, { db }) =>
        page(
          `trials ${s.id} ${orderBy ?? ''}`,
          args,
          numberKey,
          (limit, after) => pageTrials(db, s, orderBy ?? null, limit, after),
          (one) => one.number,
        ),
    }),
    front: t.field({
      type: [TrialType],
      description:
        'The Pareto front: trials that no other one beats in an objective without losing in another, the best by the first objective first. With one objective: the best, and those that are equal to it. Copies are left out.',
      extensions: { size: 10 },
      resolve: async (s, _a, context) => {
        const trials = await inTurn(context, () => listTrials(context.db, s.id));
        return inTurn(context, () => frontOf(studySettings(s), trials));
      },
    }),
    importance: t.field({
      type: [ImportanceType],
      description: 'How much each hyperparameter matters, largest first: after each generation. Empty until 10 trials have values.',
      extensions: { size: 10 },
      resolve: (s) => s.importanceJson,
    }),
    latencies: t.field({
      type: [SizeLatencyType],
      description: 'Where LATENCY is an objective: what each image size takes, smallest first. Empty until it is measured.',
      extensions: { size: 10 },
      resolve: ({ latenciesJson }) => Object.entries(latenciesJson ?? {}).map(([size, ms]) => ({ imageSize: Number(size), ms })),
    }),
    lastSeq: t.field({
      type: 'SafeInt',
      description: 'The `seq` of its newest event: `studyEvents` behind it tells what has changed since this answer.',
      resolve: ({ nextSeq }) => nextSeq - 1,
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was started.' }),
  }),
});

builder.objectField(JobType, 'study', (t) =>
  t.field({
    type: StudyType,
    nullable: true,
    description: 'The study that a TUNE job coordinates, or that an ASK, MEASURE or TRAIN job works for; null for other jobs.',
    resolve: (j, _a, { db }) => findStudyOf(db, j),
  }),
);

builder.objectField(JobType, 'trial', (t) =>
  t.field({
    type: TrialType,
    nullable: true,
    description: 'The trial of `study` that a TRAIN job trains, to a rung or to its end; null for other jobs.',
    extensions: { cost: 5 },
    resolve: (j, _a, { db }) => findTrialOf(db, j),
  }),
);

const StudyConnection = builder.connectionObject(
  { type: StudyType, name: 'StudyConnection', description: 'A page of studies.' },
  { description: 'A study in a page.' },
);

builder.queryFields((t) => ({
  study: t.field({
    type: StudyType,
    nullable: true,
    description: 'One study; null when there is none with this id.',
    authScopes: { can: 'READ' },
    args: { id: t.arg.id({ required: true, description: 'Id of the study.' }) },
    resolve: (_root, { id }, { db }) => findStudy(db, idOf('Study', id)),
  }),
  studies: t.field({
    type: StudyConnection,
    description: 'Studies, newest first.',
    authScopes: { can: 'READ' },
    args: pageArgs(),
    resolve: (_root, args, { db }) => page('studies', args, isStudyKey, (limit, after) => listStudies(db, limit, after), studyKey),
  }),
}));
