import { findUser } from '../accounts/users.ts';
import { builder, enumValues, idOf, type PayloadFields, PayloadType, payload } from '../graphql/builder.ts';
import type { FieldCost } from '../graphql/limits.ts';
import { opaqueId } from '../naming.ts';
import { queuePosition } from '../system/system.ts';
import { announceMove } from './attempt.ts';
import { type Curve, readCurves } from './curves.ts';
import { deleteJob } from './delete.ts';
import { durationOf, findJob, newestAttempts } from './jobs.ts';
import { listChildren } from './list.ts';
import { cancelJob } from './moves.ts';
import { setJobPriority } from './priority.ts';
import { replaceIds } from './references.ts';
import { retryJob } from './retry.ts';
import { type JobKindName, jobKindTable } from './specs.ts';
import { isRetryable } from './states.ts';
import type { Attempt, attemptStates, Job, jobStates } from './tables.ts';
import { tensorboardUrl } from './tensorboard.ts';
import { waitReason } from './waiting.ts';

/** Of a job, where they stand in one list. */
const childrenMax = 20;

export const JobKindType = builder.enumType('JobKind', {
  description: 'What a job does.',
  values: jobKindTable as Record<JobKindName, { description: string }>,
});

export const JobStateType = builder.enumType('JobState', {
  description: 'Where a job stands. SUCCEEDED, FAILED and CANCELLED are final.',
  values: enumValues<(typeof jobStates)[number]>({
    QUEUED: 'Waits for its turn, or for a next attempt.',
    RUNNING: 'An attempt is at work.',
    CANCELLING: 'Somebody cancelled it; the attempt is ending.',
    SUCCEEDED: 'Done: its result is registered.',
    FAILED: 'Ended without a result: `failure` says why.',
    CANCELLED: 'Stopped by a user.',
  }),
});

export const AttemptStateType = builder.enumType('AttemptState', {
  description: 'Where one attempt of a job stands.',
  values: enumValues<(typeof attemptStates)[number]>({
    STARTING: 'Its process is being started.',
    RUNNING: 'Its process works.',
    SUCCEEDED: 'Made everything, and all of it was accepted.',
    FAILED: 'Ended for a reason that another attempt would meet again.',
    CANCELLED: 'Stopped by a user.',
    SUSPENDED: 'Stopped with a checkpoint because the server stopped, or ended by a full disk; the job continues in another attempt.',
    LOST: 'The server died while it ran; the job continues in another attempt.',
    CRASHED: 'Its process was killed or stood still. Three charged attempts fail the job.',
  }),
});

export const FailureType = builder.objectRef<{ code: string; message: string }>('JobFailure').implement({
  description: 'Why a job or an attempt ended without a result.',
  fields: (t) => ({
    code: t.exposeString('code', { description: 'Stable code, such as DATA_INVALID, TIME_LIMIT or POISON.' }),
    message: t.exposeString('message', { description: 'What went wrong and what to do.' }),
    retryable: t.boolean({
      description: 'Whether the same job may succeed when it is repeated: false where its data, its file or its specification is at fault.',
      resolve: ({ code }) => isRetryable(code),
    }),
  }),
});

const CheckpointPositionType = builder.objectRef<{ epoch: number; batch: number }>('CheckpointPosition').implement({
  description: 'How far a training had come when a checkpoint was written.',
  fields: (t) => ({
    epoch: t.exposeInt('epoch', { description: 'Whole epochs.' }),
    batch: t.exposeInt('batch', { description: 'Batches of the next epoch.' }),
  }),
});

const AttemptType = builder.objectRef<Attempt>('JobAttempt').implement({
  description: 'One run of a job’s process.',
  fields: (t) => ({
    number: t.exposeInt('number', { description: 'Counted from 1 within the job.' }),
    state: t.expose('state', { type: AttemptStateType, description: 'Where it stands.' }),
    startedAt: t.expose('startedAt', { type: 'DateTime', description: 'When it was given its slot.' }),
    endedAt: t.expose('endedAt', { type: 'DateTime', nullable: true, description: 'When it ended.' }),
    durationMs: t.expose('durationMs', {
      type: 'SafeInt',
      nullable: true,
      description:
        'How long it took, by a clock that does not jump: `endedAt − startedAt` may be wrong. Null while it runs, and where the server died.',
    }),
    exitCode: t.exposeInt('exitCode', { nullable: true, description: 'Exit code of its process.' }),
    signal: t.exposeString('signal', { nullable: true, description: 'Signal that ended its process.' }),
    charged: t.exposeBoolean('charged', { description: 'Whether it counts as one of the three crashes that a job may have.' }),
    resumed: t.field({
      type: CheckpointPositionType,
      nullable: true,
      description: 'Where it continued from the checkpoint of an earlier attempt; null when it began at the start.',
      resolve: (a) => a.resumedJson,
    }),
    device: t.field({
      type: 'JSON',
      nullable: true,
      description: 'The device it ran on: type, name, memory.',
      resolve: (a) => a.deviceJson,
    }),
    environment: t.field({
      type: 'JSON',
      nullable: true,
      description: 'Versions, processor, threads, code: what its numbers depend on.',
      resolve: (a) => a.environmentJson,
    }),
  }),
});

/** Points of a curve that cost as much as one value of an object. */
const pointsForAValue = 20;

/** Without names: a training has about 20 curves. */
const curveCount: FieldCost['size'] = (argument) => {
  const names = argument('names');
  return Array.isArray(names) ? names.length : 20;
};

const CurveType = builder.objectRef<Curve>('Curve').implement({
  description: 'A metric over the steps of a training.',
  fields: (t) => ({
    name: t.exposeString('name', { description: 'Such as `train.loss`.' }),
    steps: t.field({ type: ['Int'], description: 'Optimizer steps, growing.', resolve: (c) => c.points.map((p) => p.step) }),
    epochs: t.field({
      type: ['Int'],
      nullable: { list: false, items: true },
      description: 'The epoch, from 1, that ended at each step: the axis on which runs with other batch sizes align.',
      resolve: (c) => c.points.map((p) => p.epoch),
    }),
    values: t.field({ type: ['Float'], description: 'The value at each step.', resolve: (c) => c.points.map((p) => p.value) }),
  }),
});

export const JobType = builder.node(builder.objectRef<Job>('Job'), {
  description: 'A piece of work that runs in a process of its own.',
  id: { resolve: (j) => j.id, description: 'Opaque id.' },
  loadOne: (id, { db }) => findJob(db, id),
  authScopes: { can: 'READ' },
  fields: (t) => ({
    kind: t.expose('kind', { type: JobKindType, description: 'What it does.' }),
    state: t.expose('state', { type: JobStateType, description: 'Where it stands.' }),
    priority: t.exposeInt('priority', { description: 'Higher starts first.' }),
    spec: t.field({
      type: 'JSON',
      description: 'What was asked for, with all defaults. Its ids are those that `node` takes.',
      resolve: (j) => replaceIds(j.specJson, opaqueId),
    }),
    result: t.field({
      type: 'JSON',
      nullable: true,
      description: 'What it made, with ids that `node` takes; null until it has succeeded.',
      resolve: (j) => replaceIds(j.resultJson, opaqueId),
    }),
    failure: t.field({
      type: FailureType,
      nullable: true,
      description: 'Why it failed.',
      resolve: (j) => (j.failureCode === null ? null : { code: j.failureCode, message: j.failureMessage ?? '' }),
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was put into the queue.' }),
    startedAt: t.expose('startedAt', { type: 'DateTime', nullable: true, description: 'When its first attempt started.' }),
    endedAt: t.expose('endedAt', { type: 'DateTime', nullable: true, description: 'When it ended.' }),
    durationMs: t.field({
      type: 'SafeInt',
      description: 'How long its attempts took, without those that run or under which the server died.',
      resolve: (j, _a, { db }) => durationOf(db, j.id),
    }),
    notBefore: t.expose('notBefore', {
      type: 'DateTime',
      nullable: true,
      description: 'Back-off: its next attempt starts no earlier. Null when it does not back off.',
    }),
    waitReason: t.field({
      type: FailureType,
      nullable: true,
      description:
        'Why it does not get on, such as DISK_FULL: the disk has no room, TOO_FEW_SLOTS: it has more processes than the server has slots, or what its last attempt met before the back-off. Null when it works, or only waits for its turn.',
      resolve: (j, _a, context) => waitReason(context, j),
    }),
    createdByName: t.string({
      nullable: true,
      description: 'Name of the user who started it.',
      resolve: (j, _a, { db }) => (j.createdById ? findUser(db, j.createdById)?.name : null),
    }),
    queuePosition: t.int({
      nullable: true,
      description: 'Place in the queue, from 1; null when it does not wait.',
      resolve: (j, _a, { db }) => queuePosition(db, j),
    }),
    attempts: t.field({
      type: [AttemptType],
      description: 'Its attempts, first to last; of more than 50 the last ones.',
      extensions: { size: 10 },
      resolve: (j, _a, { db }) => newestAttempts(db, j.id),
    }),
    metrics: t.field({
      type: [CurveType],
      description: 'Curves, sorted by name.',
      args: {
        names: t.arg.stringList({ description: 'Only these.' }),
        maxPoints: t.arg.int({
          required: true,
          defaultValue: 500,
          description: 'Points of a curve, 2 to 5000: a longer one is thinned evenly, its last point kept.',
        }),
      },
      extensions: {
        size: curveCount,
        cost: (argument) => (curveCount(argument) * Number(argument('maxPoints'))) / pointsForAValue,
      } satisfies FieldCost,
      resolve: (j, { names, maxPoints }, context) => readCurves(context.db, context, j.id, names, Math.min(5000, Math.max(2, maxPoints))),
    }),
    tensorboardUrl: t.string({
      description: 'A short-lived link to its curves so far as an event file of TensorBoard. `exportJobs` gives them as CSV.',
      resolve: (j, _a, context) => tensorboardUrl(context, j),
    }),
  }),
});

builder.objectFields(JobType, (t) => ({
  retryOf: t.field({
    type: JobType,
    nullable: true,
    description: 'The job that this one repeats.',
    resolve: (j, _a, { db }) => (j.retryOfId ? findJob(db, j.retryOfId) : null),
  }),
  parent: t.field({
    type: JobType,
    nullable: true,
    description: 'The job that made this one, such as the training of a conversion; null when a user started it.',
    resolve: (j, _a, { db }) => (j.parentId ? findJob(db, j.parentId) : null),
  }),
  children: t.field({
    type: [JobType],
    description: `Jobs that this one has made, first to last; at most ${childrenMax}: \`jobs(filter: {parentId})\` gives all. Cancelling it cancels them.`,
    extensions: { size: 2 },
    resolve: (j, _a, { db }) => listChildren(db, j.id, childrenMax),
  }),
}));

builder.queryFields((t) => ({
  job: t.field({
    type: JobType,
    nullable: true,
    description: 'One job; null when there is none with this id.',
    authScopes: { can: 'READ' },
    args: { id: t.arg.id({ required: true, description: 'Id of the job.' }) },
    resolve: (_root, { id }, { db }) => findJob(db, idOf('Job', id)),
  }),
}));

const jobPayload = {
  interfaces: [PayloadType],
  outputFields: (t: PayloadFields<Job>) => ({
    job: t.field({ type: JobType, nullable: true, description: 'The job as it is now.', resolve: (p) => p.result }),
  }),
};

builder.relayMutationField(
  'cancelJob',
  { inputFields: (t) => ({ jobId: t.id({ required: true, description: 'The job to cancel.' }) }) },
  {
    description:
      'Stops a job. One that waits is CANCELLED at once; one that runs writes a checkpoint first, and is killed after 40 seconds.',
    authScopes: { can: 'RUN_JOBS' },
    resolve: (_root, { input }, context) =>
      payload(async () => {
        const id = idOf('Job', input.jobId);
        const move = cancelJob(context.db, context.jobKinds, context.actor, id);
        if (move) announceMove(context, move);
        return findJob(context.db, id) as Job;
      }),
  },
  jobPayload,
);

builder.relayMutationField(
  'setJobPriority',
  {
    inputFields: (t) => ({
      jobId: t.id({ required: true, description: 'A job that has not ended.' }),
      priority: t.int({ required: true, description: 'Higher starts first, -100 to 100.' }),
    }),
  },
  {
    description:
      'Moves a job within the queue, with the jobs that it has made and will make. A running job is not stopped; it has the new place if it must wait again.',
    authScopes: { can: 'RUN_JOBS' },
    resolve: (_root, { input }, context) => payload(() => setJobPriority(context, context.actor, idOf('Job', input.jobId), input)),
  },
  jobPayload,
);

builder.relayMutationField(
  'retryJob',
  {
    inputFields: (t) => ({
      jobId: t.id({ required: true, description: 'A job that failed or was cancelled.' }),
      idempotencyKey: t.string({ description: 'The same key gives the same new job, however often it is sent.' }),
    }),
  },
  {
    description:
      'Starts a new job with the specification of one that failed or was cancelled. It continues from its checkpoint, which is kept for WHETSTONE_WORK_DAYS (7).',
    authScopes: { can: 'RUN_JOBS' },
    resolve: (_root, { input }, context) =>
      payload(() => retryJob(context, context.jobKinds, context.actor, idOf('Job', input.jobId), input.idempotencyKey)),
  },
  jobPayload,
);

builder.relayMutationField(
  'deleteJob',
  { inputFields: (t) => ({ jobId: t.id({ required: true, description: 'A job that has ended.' }) }) },
  {
    description:
      'Deletes a job for good, with the jobs that it has made, their events, curves and logs, and what they have measured: reports and load ' +
      'tests. IN_USE while it runs, while a job repeats it, and while a version that it has made or evaluated, or a study, needs it: ' +
      '`deleteStudy` deletes a study with its jobs.',
    authScopes: { can: 'DELETE' },
    resolve: (_root, { input }, context) => payload(() => deleteJob(context, context.actor, idOf('Job', input.jobId))),
  },
  {
    interfaces: [PayloadType],
    outputFields: (t: PayloadFields<Job>) => ({
      deletedJobId: t.id({
        nullable: true,
        description: 'The id of the job, which nothing has any more.',
        resolve: (p) => p.result && opaqueId('Job', p.result.id),
      }),
    }),
  },
);
