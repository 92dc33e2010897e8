import { ApiError } from '../errors.ts';
import { builder, idOf } from '../graphql/builder.ts';
import { readEvents } from './events.ts';
import { JobFilterInput, jobFilterOf } from './list.schema.ts';
import { passesFilter } from './list.ts';
import { logReader } from './logs.ts';
import type { LogLine, Progress } from './progress.ts';
import { AttemptStateType, FailureType, JobStateType, JobType } from './schema.ts';
import type { Attempt, Job, JobEvent } from './tables.ts';
import { watchEvents, watchJobs, watchLogs, watchProgress } from './watch.ts';

const payloadOf = <T>(event: JobEvent, key: string): T => event.payloadJson[key] as T;

const JobEventType = builder.interfaceRef<JobEvent>('JobEvent').implement({
  description: 'A stored event of a job. The events of a job are numbered without a gap.',
  fields: (t) => ({
    seq: t.expose('seq', { type: 'SafeInt', description: 'Number within the job, from 1: the `after` of a later subscription.' }),
    at: t.expose('at', { type: 'DateTime', description: 'When it was stored. Order is by `seq`.' }),
    attempt: t.exposeInt('attemptNumber', { description: 'The attempt it belongs to; 0 before the first.' }),
  }),
  resolveType: ({ type }) => eventTypeNames[type],
});

const eventTypeNames = {
  STATE: 'JobStateEvent',
  PHASE: 'JobPhaseEvent',
  EPOCH: 'JobEpochEvent',
  CHECKPOINT: 'JobCheckpointEvent',
  ARTIFACT: 'JobArtifactEvent',
  GATE: 'JobGateEvent',
  WARNING: 'JobWarningEvent',
  TRIAL: 'JobTrialEvent',
} as const satisfies Record<JobEvent['type'], string>;

const MetricType = builder.objectRef<[string, number]>('Metric').implement({
  description: 'A number with its name.',
  fields: (t) => ({
    name: t.string({ description: 'Such as `val.top1`.', resolve: ([name]) => name }),
    value: t.float({ description: 'Its value.', resolve: ([, value]) => value }),
  }),
});

builder.objectType(builder.objectRef<JobEvent>(eventTypeNames.STATE), {
  description: 'The job has moved to another state.',
  interfaces: [JobEventType],
  fields: (t) => ({
    state: t.field({ type: JobStateType, description: 'The state from now on.', resolve: (e) => payloadOf<Job['state']>(e, 'state') }),
    attemptState: t.field({
      type: AttemptStateType,
      nullable: true,
      description: 'How the attempt ended that led to it.',
      resolve: (e) => payloadOf<Attempt['state'] | undefined>(e, 'attemptState'),
    }),
    failure: t.field({
      type: FailureType,
      nullable: true,
      description: 'Why the attempt ended like that.',
      resolve: (e) => payloadOf<{ code: string; message: string } | undefined>(e, 'failure'),
    }),
  }),
});
builder.objectType(builder.objectRef<JobEvent>(eventTypeNames.PHASE), {
  description: 'The job has begun its next phase.',
  interfaces: [JobEventType],
  fields: (t) => ({
    phase: t.string({ description: 'Such as caching, training, validation, export, gate.', resolve: (e) => payloadOf<string>(e, 'phase') }),
    total: t.int({
      nullable: true,
      description: 'Units of work in it; null where unknown.',
      resolve: (e) => payloadOf<number | null>(e, 'total'),
    }),
  }),
});
builder.objectType(builder.objectRef<JobEvent>(eventTypeNames.EPOCH), {
  description: 'A training epoch has ended.',
  interfaces: [JobEventType],
  fields: (t) => ({
    epoch: t.int({ description: 'Counted from 1.', resolve: (e) => payloadOf<number>(e, 'epoch') }),
    epochs: t.int({ description: 'Epochs in all.', resolve: (e) => payloadOf<number>(e, 'epochs') }),
    step: t.int({ description: 'Optimizer steps so far.', resolve: (e) => payloadOf<number>(e, 'step') }),
    best: t.boolean({
      description: 'Whether no earlier epoch was better on the validation split.',
      resolve: (e) => payloadOf<boolean>(e, 'best'),
    }),
    durationMs: t.int({ description: 'How long it took.', resolve: (e) => payloadOf<number>(e, 'durationMs') }),
    metrics: t.field({
      type: [MetricType],
      description: 'What was measured, by name.',
      extensions: { size: 2 },
      resolve: (e) => sortedEntries(payloadOf<Record<string, number>>(e, 'metrics')),
    }),
  }),
});
builder.objectType(builder.objectRef<JobEvent>(eventTypeNames.CHECKPOINT), {
  description: 'A checkpoint is on the disk: a later attempt continues from here.',
  interfaces: [JobEventType],
  fields: (t) => ({
    epoch: t.int({ description: 'Complete epochs in it.', resolve: (e) => payloadOf<number>(e, 'epoch') }),
    batch: t.int({ description: 'Batches of the next epoch in it.', resolve: (e) => payloadOf<number>(e, 'batch') }),
    sizeBytes: t.field({ type: 'SafeInt', description: 'Its size.', resolve: (e) => payloadOf<number>(e, 'sizeBytes') }),
  }),
});
builder.objectType(builder.objectRef<JobEvent>(eventTypeNames.ARTIFACT), {
  description: 'The job has made a file. It is registered when the job succeeds.',
  interfaces: [JobEventType],
  fields: (t) => ({
    kind: t.string({ description: 'Such as WEIGHTS, ONNX, EVALUATION.', resolve: (e) => payloadOf<string>(e, 'kind') }),
    sha256: t.string({ description: 'Hash of its content.', resolve: (e) => payloadOf<string>(e, 'sha256') }),
    sizeBytes: t.field({ type: 'SafeInt', description: 'Its size.', resolve: (e) => payloadOf<number>(e, 'sizeBytes') }),
  }),
});
builder.objectType(builder.objectRef<JobEvent>(eventTypeNames.GATE), {
  description: 'A model was compared with its reference. The numbers decide whether it is registered.',
  interfaces: [JobEventType],
  fields: (t) => ({
    gate: t.string({ description: 'Which gate.', resolve: (e) => payloadOf<string>(e, 'gate') }),
    numbers: t.field({ type: 'JSON', description: 'What was measured.', resolve: (e) => payloadOf<unknown>(e, 'numbers') }),
  }),
});
builder.objectType(builder.objectRef<JobEvent>(eventTypeNames.WARNING), {
  description: 'Something that the user should know and that does not stop the job.',
  interfaces: [JobEventType],
  fields: (t) => ({
    code: t.string({ description: 'Stable code.', resolve: (e) => payloadOf<string>(e, 'code') }),
    message: t.string({ description: 'What it is.', resolve: (e) => payloadOf<string>(e, 'message') }),
  }),
});

builder.objectType(builder.objectRef<JobEvent>(eventTypeNames.TRIAL), {
  description: 'A trial of the study that the job coordinates has ended.',
  interfaces: [JobEventType],
  fields: (t) => ({
    number: t.int({ description: 'Its number, from 0.', resolve: (e) => payloadOf<number>(e, 'number') }),
    generation: t.int({ description: 'Its generation, from 0.', resolve: (e) => payloadOf<number>(e, 'generation') }),
    outcome: t.string({
      description: 'COMPLETE, STOPPED (weaker than others at a rung) or WORST (it diverged, had no memory, or was cancelled).',
      resolve: (e) => payloadOf<string>(e, 'outcome'),
    }),
    values: t.floatList({
      nullable: true,
      description: 'Of the objectives; null of a WORST one.',
      resolve: (e) => payloadOf<number[] | null>(e, 'values'),
    }),
    copyOf: t.int({
      nullable: true,
      description: 'The trial with the same hyperparameters whose result it has; null when it was trained itself.',
      resolve: (e) => payloadOf<number | null>(e, 'copyOf'),
    }),
  }),
});

const sortedEntries = (metrics: Record<string, number>) => Object.entries(metrics).sort(([a], [b]) => (a < b ? -1 : 1));

const ProgressType = builder.objectRef<Progress>('JobProgress').implement({
  description: 'A tick of a running job. The latest is worth keeping; none is stored.',
  fields: (t) => ({
    phase: t.exposeString('phase', { description: 'The phase that is running.' }),
    done: t.expose('done', { type: 'SafeInt', description: 'Units of the phase that are done.' }),
    total: t.expose('total', { type: 'SafeInt', nullable: true, description: 'Units of the phase; null where unknown.' }),
    epoch: t.exposeInt('epoch', { nullable: true, description: 'The epoch that is running, from 1.' }),
    epochs: t.exposeInt('epochs', { nullable: true, description: 'Epochs in all.' }),
    itemsPerSecond: t.exposeFloat('itemsPerSecond', { nullable: true, description: 'Images in a second.' }),
    etaMs: t.expose('etaMs', { type: 'SafeInt', nullable: true, description: 'Milliseconds to the end at this speed.' }),
    metrics: t.field({
      type: [MetricType],
      description: 'What was measured last.',
      extensions: { size: 2 },
      resolve: (p) => sortedEntries(p.metrics),
    }),
  }),
});

const LogLineType = builder.objectRef<LogLine>('LogLine').implement({
  description: 'A line that a job’s process wrote.',
  fields: (t) => ({
    n: t.expose('n', { type: 'SafeInt', description: 'Number within the job, from 1: the `after` of a later subscription.' }),
    at: t.expose('at', { type: 'DateTime', description: 'When it was written.' }),
    attempt: t.exposeInt('attemptNumber', { description: 'The attempt that wrote it.' }),
    stream: t.exposeString('stream', { description: 'stdout or stderr.' }),
    text: t.exposeString('text', { description: 'The line.', extensions: { cost: 5 } }),
  }),
});

builder.objectFields(JobType, (t) => ({
  events: t.field({
    type: [JobEventType],
    description: 'Stored events behind `after`, in order.',
    args: {
      after: t.arg({ type: 'SafeInt', required: true, defaultValue: 0, description: 'Seq of the last event that is known.' }),
      first: t.arg.int({ required: true, defaultValue: 100, description: 'Events wanted, 1 to 1000.' }),
    },
    resolve: (j, { after, first }, { db }) => readEvents(db, j.id, after, atMost(first, 1000)),
  }),
  logs: t.field({
    type: [LogLineType],
    description: 'Stored log lines behind `after`, in order.',
    args: {
      after: t.arg({ type: 'SafeInt', required: true, defaultValue: 0, description: 'Number of the last line that is known.' }),
      first: t.arg.int({ required: true, defaultValue: 100, description: 'Lines wanted, 1 to 1000.' }),
    },
    resolve: (j, { after, first }, { config }) => logReader(config.dataDir, j.id, after)(atMost(first, 1000)),
  }),
}));

function atMost(first: number, max: number): number {
  if (first < 1 || first > max) throw new ApiError('LIMIT', `Between 1 and ${max} can be asked for at once.`);
  return first;
}

builder.subscriptionFields((t) => ({
  jobEvents: t.field({
    type: JobEventType,
    description:
      'The durable events of a job behind `after`: first the stored ones, then each as it comes, without a gap; ends with the job.',
    authScopes: { can: 'READ' },
    args: {
      id: t.arg.id({ required: true, description: 'The job.' }),
      after: t.arg({
        type: 'SafeInt',
        required: true,
        defaultValue: 0,
        description: 'Seq of the last event that the client knows: a client that lost its connection continues behind it.',
      }),
    },
    subscribe: (_root, { id, after }, context) => watchEvents(context, idOf('Job', id), after),
    resolve: (event) => event as JobEvent,
  }),
  jobProgress: t.field({
    type: ProgressType,
    description: 'Ticks of a running job, at most 4 a second, the latest only; ends with the job.',
    authScopes: { can: 'READ' },
    args: { id: t.arg.id({ required: true, description: 'The job.' }) },
    subscribe: (_root, { id }, context) => watchProgress(context, idOf('Job', id)),
    resolve: (tick) => tick as Progress,
  }),
  jobLogs: t.field({
    type: LogLineType,
    description: 'The log of a job behind line `after`; ends with the job.',
    authScopes: { can: 'READ' },
    args: {
      id: t.arg.id({ required: true, description: 'The job.' }),
      after: t.arg({ type: 'SafeInt', required: true, defaultValue: 0, description: 'Number of the last line that is known.' }),
    },
    subscribe: (_root, { id, after }, context) => watchLogs(context, idOf('Job', id), after),
    resolve: (line) => line as LogLine,
  }),
  jobs: t.field({
    type: JobType,
    description: 'The jobs that have not ended, oldest first, then each job whenever it changes.',
    authScopes: { can: 'READ' },
    args: { filter: t.arg({ type: JobFilterInput, description: 'Which jobs.' }) },
    subscribe: (_root, { filter }, context) => {
      const wanted = jobFilterOf(filter);
      return watchJobs(context, filter ? ({ id }) => passesFilter(context.db, wanted, id) : () => true);
    },
    resolve: (row) => row as Job,
  }),
}));
