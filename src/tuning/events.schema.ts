import { ApiError } from '../errors.ts';
import { builder, idOf } from '../graphql/builder.ts';
import { FailureType, JobStateType, JobType } from '../jobs/schema.ts';
import { findModelVersion } from '../models/models.ts';
import { ModelVersionType } from '../models/schema.ts';
import { jobOfEvent, readStudyEvents, type StudyEventPayloads, watchStudyEvents } from './events.ts';
import { StudyType, TrialOutcomeType, trialFailureSays } from './schema.ts';
import type { StudyEvent } from './tables.ts';

const payloadOf = <T extends StudyEvent['type']>({ payloadJson }: StudyEvent) => payloadJson as unknown as StudyEventPayloads[T];

const typeNames = {
  STATE: 'StudyStateEvent',
  TRIAL_ENQUEUED: 'StudyTrialEnqueuedEvent',
  TRIAL_STARTED: 'StudyTrialStartedEvent',
  RUNG_ENDED: 'StudyRungEndedEvent',
  PROMOTION: 'StudyPromotionEvent',
  TRIAL_ENDED: 'StudyTrialEndedEvent',
  REGISTRATION_ENDED: 'StudyRegistrationEndedEvent',
  GENERATION_ENDED: 'StudyGenerationEndedEvent',
  FRONT_CHANGED: 'StudyFrontEvent',
  EXTENDED: 'StudyExtendedEvent',
} as const satisfies Record<StudyEvent['type'], string>;

const StudyEventType = builder.interfaceRef<StudyEvent>('StudyEvent').implement({
  description: 'A stored event of a study. The events of a study are numbered without a gap, over all jobs that coordinate it.',
  fields: (t) => ({
    seq: t.expose('seq', { type: 'SafeInt', description: 'Number within the study, from 1: the `after` of a later subscription.' }),
    at: t.expose('at', { type: 'DateTime', description: 'When it was stored. Order is by `seq`.' }),
  }),
  resolveType: ({ type }) => typeNames[type],
});

const StudyTrialEventType = builder.interfaceRef<StudyEvent>('StudyTrialEvent').implement({
  description: 'A stored event of a trial.',
  interfaces: [StudyEventType],
  fields: (t) => ({
    number: t.int({ description: 'Number of the trial, from 0.', resolve: (e) => payloadOf<'TRIAL_STARTED'>(e).number }),
    generation: t.int({ description: 'Its generation, from 0.', resolve: (e) => payloadOf<'TRIAL_STARTED'>(e).generation }),
  }),
  resolveType: ({ type }) => typeNames[type],
});

builder.objectType(builder.objectRef<StudyEvent>(typeNames.STATE), {
  description: 'The study begins, moves to another state, is paused or resumed, or continues in another job.',
  interfaces: [StudyEventType],
  fields: (t) => ({
    state: t.field({ type: JobStateType, description: 'State of its job from now on.', resolve: (e) => payloadOf<'STATE'>(e).state }),
    paused: t.boolean({ description: 'Whether it is paused from now on.', resolve: (e) => payloadOf<'STATE'>(e).paused }),
    failure: t.field({
      type: FailureType,
      nullable: true,
      description: 'Why it failed; null otherwise.',
      resolve: (e) => payloadOf<'STATE'>(e).failure,
    }),
    job: t.field({
      type: JobType,
      nullable: true,
      description: 'The job that coordinates it: a retry or an extension brings another one.',
      resolve: (e, _a, { db }) => jobOfEvent(db, e),
    }),
  }),
});

builder.objectType(builder.objectRef<StudyEvent>(typeNames.TRIAL_ENQUEUED), {
  description: 'A training of a trial waits for a slot: the first one, one again after a retry, or the one that registers it.',
  interfaces: [StudyEventType, StudyTrialEventType],
  fields: (t) => ({
    params: t.field({
      type: 'JSON',
      description: 'The value of each dimension of the space.',
      resolve: (e) => payloadOf<'TRIAL_ENQUEUED'>(e).params,
    }),
    stopAfterEpoch: t.int({
      nullable: true,
      description: 'The rung to which it trains; null: to its end.',
      resolve: (e) => payloadOf<'TRIAL_ENQUEUED'>(e).stopAfterEpoch,
    }),
    registers: t.boolean({
      description: 'Whether the training registers the trial as a version, at the end of the study.',
      resolve: (e) => payloadOf<'TRIAL_ENQUEUED'>(e).registers,
    }),
    job: t.field({ type: JobType, nullable: true, description: 'The training.', resolve: (e, _a, { db }) => jobOfEvent(db, e) }),
  }),
});

builder.objectType(builder.objectRef<StudyEvent>(typeNames.TRIAL_STARTED), {
  description: 'A training of a trial has a slot and starts, or starts again after a pause or a crash.',
  interfaces: [StudyEventType, StudyTrialEventType],
  fields: (t) => ({
    attempt: t.int({ description: 'The attempt of the training, from 1.', resolve: (e) => payloadOf<'TRIAL_STARTED'>(e).attempt }),
    job: t.field({ type: JobType, nullable: true, description: 'The training.', resolve: (e, _a, { db }) => jobOfEvent(db, e) }),
  }),
});

builder.objectType(builder.objectRef<StudyEvent>(typeNames.TRIAL_ENDED), {
  description: 'A trial has ended. Of a copy this is the only event: it is not trained.',
  interfaces: [StudyEventType, StudyTrialEventType],
  fields: (t) => ({
    params: t.field({
      type: 'JSON',
      description: 'The value of each dimension of the space.',
      resolve: (e) => payloadOf<'TRIAL_ENDED'>(e).params,
    }),
    outcome: t.field({ type: TrialOutcomeType, description: 'How it ended.', resolve: (e) => payloadOf<'TRIAL_ENDED'>(e).outcome }),
    failure: t.field({
      type: FailureType,
      nullable: true,
      description: trialFailureSays,
      resolve: (e) => payloadOf<'TRIAL_ENDED'>(e).failure,
    }),
    values: t.floatList({
      nullable: true,
      description: 'Of the objectives of the study, in their order; null of a WORST one.',
      resolve: (e) => payloadOf<'TRIAL_ENDED'>(e).values,
    }),
    epochs: t.int({ description: 'Whole epochs that count.', resolve: (e) => payloadOf<'TRIAL_ENDED'>(e).epochs }),
    copyOf: t.int({
      nullable: true,
      description: 'The trial with the same hyperparameters whose result it has; null when it was trained itself.',
      resolve: (e) => payloadOf<'TRIAL_ENDED'>(e).copyOf,
    }),
  }),
});

builder.objectType(builder.objectRef<StudyEvent>(typeNames.RUNG_ENDED), {
  description: 'A trial has trained to a rung, and waits there for the others of its generation.',
  interfaces: [StudyEventType, StudyTrialEventType],
  fields: (t) => ({
    epochs: t.int({ description: 'The rung: whole epochs so far.', resolve: (e) => payloadOf<'RUNG_ENDED'>(e).epochs }),
    values: t.floatList({
      nullable: true,
      description: 'Of the objectives of the study at the rung, in their order.',
      resolve: (e) => payloadOf<'RUNG_ENDED'>(e).values,
    }),
  }),
});

builder.objectType(builder.objectRef<StudyEvent>(typeNames.REGISTRATION_ENDED), {
  description: 'The training that registers a trial has ended, or the conversion of the version that it has registered.',
  interfaces: [StudyEventType, StudyTrialEventType],
  fields: (t) => ({
    state: t.field({ type: JobStateType, description: 'How the job ended.', resolve: (e) => payloadOf<'REGISTRATION_ENDED'>(e).state }),
    modelVersion: t.field({
      type: ModelVersionType,
      nullable: true,
      description: 'The version that it made; null where it made none, or the version was deleted.',
      resolve: (e, _a, { db }) => {
        const { modelVersionId } = payloadOf<'REGISTRATION_ENDED'>(e);
        return modelVersionId === null ? null : findModelVersion(db, modelVersionId);
      },
    }),
    job: t.field({
      type: JobType,
      nullable: true,
      description: 'The training or the conversion.',
      resolve: (e, _a, { db }) => jobOfEvent(db, e),
    }),
  }),
});

builder.objectType(builder.objectRef<StudyEvent>(typeNames.PROMOTION), {
  description: 'A trial is among the best of its generation at a rung: its training continues from the checkpoint.',
  interfaces: [StudyEventType, StudyTrialEventType],
  fields: (t) => ({
    epochs: t.int({ description: 'The rung: whole epochs so far.', resolve: (e) => payloadOf<'PROMOTION'>(e).epochs }),
    values: t.floatList({
      nullable: true,
      description: 'Of the objectives of the study at the rung, in their order.',
      resolve: (e) => payloadOf<'PROMOTION'>(e).values,
    }),
    stopAfterEpoch: t.int({
      nullable: true,
      description: 'The next rung; null: it trains to its end.',
      resolve: (e) => payloadOf<'PROMOTION'>(e).stopAfterEpoch,
    }),
    job: t.field({
      type: JobType,
      nullable: true,
      description: 'The training to the next rung.',
      resolve: (e, _a, { db }) => jobOfEvent(db, e),
    }),
  }),
});

builder.objectType(builder.objectRef<StudyEvent>(typeNames.GENERATION_ENDED), {
  description: 'All trials of a generation have ended. An extension may fill up a generation that was not full: it then ends again.',
  interfaces: [StudyEventType],
  fields: (t) => ({
    generation: t.int({ description: 'From 0.', resolve: (e) => payloadOf<'GENERATION_ENDED'>(e).generation }),
    trials: t.int({
      description: 'Trials of the study that have ended so far, copies included.',
      resolve: (e) => payloadOf<'GENERATION_ENDED'>(e).trials,
    }),
  }),
});

builder.objectType(builder.objectRef<StudyEvent>(typeNames.FRONT_CHANGED), {
  description: 'The Pareto front of the trials that have ended has changed; with one objective: the best of them.',
  interfaces: [StudyEventType],
  fields: (t) => ({
    front: t.intList({
      description: 'Numbers of its trials, the best by the first objective first.',
      resolve: (e) => payloadOf<'FRONT_CHANGED'>(e).front,
    }),
  }),
});

builder.objectType(builder.objectRef<StudyEvent>(typeNames.EXTENDED), {
  description: 'Somebody has extended the study. One that had succeeded then continues in another job.',
  interfaces: [StudyEventType],
  fields: (t) => ({
    generations: t.int({ description: 'Further generations.', resolve: (e) => payloadOf<'EXTENDED'>(e).generations }),
    trialsWanted: t.int({
      description: 'Trials that the study makes in all from now on.',
      resolve: (e) => payloadOf<'EXTENDED'>(e).trialsWanted,
    }),
  }),
});

const firstMax = 1000;

builder.objectFields(StudyType, (t) => ({
  events: t.field({
    type: [StudyEventType],
    description: 'Stored events behind `after`, in order.',
    args: {
      after: t.arg({ type: 'SafeInt', required: true, defaultValue: 0, description: 'Seq of the last event that is known.' }),
      first: t.arg.int({ required: true, defaultValue: 100, description: `Events wanted, 1 to ${firstMax}.` }),
    },
    resolve: (s, { after, first }, { db }) => {
      if (first < 1 || first > firstMax) throw new ApiError('LIMIT', `Between 1 and ${firstMax} can be asked for at once.`);
      return readStudyEvents(db, s.id, after, first);
    },
  }),
}));

builder.subscriptionField('studyEvents', (t) =>
  t.field({
    type: StudyEventType,
    description:
      'The events of a study behind `after`: first the stored ones, then each as it comes, without a gap, also when a retry or an extension ' +
      'continues the study in another job. So it does not end with the job: a `StudyStateEvent` tells that. It ends when the study is deleted.',
    authScopes: { can: 'READ' },
    args: {
      id: t.arg.id({ required: true, description: 'The study.' }),
      after: t.arg({
        type: 'SafeInt',
        required: true,
        defaultValue: 0,
        description: 'Seq of the last event that the client knows: a client that lost its connection continues behind it.',
      }),
    },
    subscribe: (_root, { id, after }, context) => watchStudyEvents(context, idOf('Study', id), after),
    resolve: (event) => event as StudyEvent,
  }),
);
