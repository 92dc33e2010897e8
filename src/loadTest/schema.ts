import { percentiles } from '../benchmark/statistics.ts';
import { findDeployment } from '../deployments/deployments.ts';
import { DeploymentType } from '../deployments/schema.ts';
import { builder, type PayloadFields, PayloadType, payload } from '../graphql/builder.ts';
import { findJob } from '../jobs/jobs.ts';
import { JobType } from '../jobs/schema.ts';
import type { Job } from '../jobs/tables.ts';
import { findModelVersion } from '../models/models.ts';
import { ModelVersionType } from '../models/schema.ts';
import { PercentileType } from '../reports/rows.schema.ts';
import { findLoadTest, listLoadTests, readRates } from './loadTests.ts';
import { highestRateOf, isClientLate, isInDeadline, type RateResult, shareInDeadline } from './rates.ts';
import { sentencesOf } from './sentences.ts';
import { startLoadTest } from './start.ts';
import type { LoadTest } from './tables.ts';

const testsMax = 20;
const percentInDeadline = 100 * shareInDeadline;

const RateType = builder.objectRef<RateResult & { secondsPerRate: number }>('LoadTestRate').implement({
  description: 'What became of the requests at one rate. They arrive at random (Poisson), and none waits for the answer to another.',
  fields: (t) => ({
    rate: t.exposeFloat('rate', { description: 'Requests a second that were asked for.' }),
    offeredPerSecond: t.float({
      description: 'Requests a second that were due; by chance more or fewer than `rate`.',
      resolve: ({ arrivals, secondsPerRate }) => arrivals / secondsPerRate,
    }),
    answeredPerSecond: t.exposeFloat('answeredPerSecond', {
      description: 'Requests a second that were answered by the end of the window.',
    }),
    requests: t.exposeInt('arrivals', { description: 'Requests that were due. The next six counts add up to it.' }),
    answered: t.exposeInt('answered', { description: 'With an answer (200), also after the end of the window.' }),
    overloaded: t.exposeInt('overloaded', {
      description: 'Refused at once (429): the queue was full, or the answer would have been late.',
    }),
    unavailable: t.exposeInt('unavailable', {
      description: 'Refused (503): the inference host was stopping, or had not loaded the model.',
    }),
    expired: t.exposeInt('expired', { description: 'Admitted, and not answered by the deadline (504).' }),
    failed: t.exposeInt('failed', { description: 'With an error of the model or the host, or without any answer.' }),
    notSent: t.exposeInt('notSent', { description: 'Not sent, because 2000 earlier requests had no answer yet.' }),
    inDeadline: t.exposeInt('inDeadline', { description: 'Answered within the deadline, counted from when the request was due.' }),
    meetsDeadline: t.boolean({
      description: `Whether ${percentInDeadline} % of all requests, those that were refused included, were answered within the deadline.`,
      resolve: isInDeadline,
    }),
    percentiles: t.field({
      type: [PercentileType],
      description: 'Latency of the answered requests: P50, P95 and P99. It counts from when a request was due, not from when it was sent.',
      extensions: { size: 3 },
      resolve: ({ latency }) => (['p50', 'p95', 'p99'] as const).map((name) => ({ name, ...latency[name] })),
    }),
    sendDelayP99Ms: t.float({
      nullable: true,
      description: `P${percentiles.p99 / 10} of how long after its due time a request was sent; null without requests.`,
      resolve: ({ sendDelayNs }) => sendDelayNs && sendDelayNs / 1e6,
    }),
    clientLate: t.boolean({
      description: 'Whether `sendDelayP99Ms` is above 1 ms and above a tenth of the P50 latency: then the latencies are too long.',
      resolve: isClientLate,
    }),
    clientCores: t.exposeFloat('clientCores', {
      description: 'Cores that the load generator itself kept busy, on the same machine as the inference host.',
    }),
    otherRequests: t.exposeInt('otherRequests', {
      nullable: true,
      description: 'Requests of others that the inference host answered meanwhile; null where it did not say.',
    }),
  }),
});

const LoadTestType = builder.objectRef<LoadTest>('LoadTest').implement({
  description: 'How a deployment answered at growing rates of requests.',
  fields: (t) => ({
    deployment: t.field({
      type: DeploymentType,
      nullable: true,
      description: 'What was driven; null when it was taken away.',
      resolve: (l, _a, { db }) => findDeployment(db, l.deploymentId),
    }),
    revision: t.exposeInt('revision', { description: 'Number of the revision that answered.' }),
    modelVersion: t.field({
      type: ModelVersionType,
      nullable: true,
      description: 'What the revision serves; null when it was deleted.',
      resolve: (l, _a, { db }) => findModelVersion(db, l.modelVersionId),
    }),
    deadlineMs: t.exposeFloat('deadlineMs', { description: 'Deadline of each request.' }),
    secondsPerRate: t.exposeInt('secondsPerRate', { description: 'Length of the window of each rate.' }),
    seed: t.expose('seed', { type: 'SafeInt', description: 'Seed of the arrivals: the same rate and seed give the same times.' }),
    capacityPerSecond: t.exposeFloat('capacityPerSecond', {
      description: 'Requests a second that it answered when each of a few connections sent the next request after each answer.',
    }),
    highestRate: t.float({
      nullable: true,
      description: 'The highest of the rates that meets the deadline; null where none does.',
      extensions: { cost: 10 },
      resolve: (l, _a, { db }) => highestRateOf(readRates(db, l.jobId)),
    }),
    summary: t.stringList({
      description: 'What the test says in a few sentences, and what makes its figures less certain.',
      extensions: { size: 5, cost: 10 },
      resolve: (l, _a, { db }) => sentencesOf(l, readRates(db, l.jobId)),
    }),
    rates: t.field({
      type: [RateType],
      description: 'In the order in which they were driven.',
      extensions: { size: 8 },
      resolve: ({ jobId, secondsPerRate }, _a, { db }) => readRates(db, jobId).map((rate) => ({ ...rate, secondsPerRate })),
    }),
    endedAt: t.expose('endedAt', { type: 'DateTime', description: 'When it ended.' }),
    job: t.field({ type: JobType, description: 'The job that did it.', resolve: (l, _a, { db }) => findJob(db, l.jobId) as Job }),
  }),
});

builder.objectField(JobType, 'loadTest', (t) =>
  t.field({
    type: LoadTestType,
    nullable: true,
    description: 'What a load test has measured; null for other jobs and until it has ended.',
    resolve: (j, _a, { db }) => findLoadTest(db, j.id),
  }),
);

builder.objectField(DeploymentType, 'loadTests', (t) =>
  t.field({
    type: [LoadTestType],
    description: `Its load tests, newest first; at most ${testsMax}.`,
    extensions: { size: 5 },
    resolve: (d, _a, { db }) => listLoadTests(db, d.id, testsMax),
  }),
);

builder.relayMutationField(
  'startLoadTest',
  {
    inputFields: (t) => ({
      deployment: t.string({ required: true, description: 'Name of the deployment.' }),
      rates: t.floatList({
        description:
          'Requests a second, each at most 20000, at most 12 of them, driven in this order. Without them 10, 25, 50, 75, 90, 100 and 120 % of the capacity, which is estimated first.',
      }),
      deadlineMs: t.float({ description: 'Deadline of each request; the deployment’s own without it. At most 60000.' }),
      secondsPerRate: t.int({ required: true, defaultValue: 10, description: 'How long to drive each rate, 1 to 60.' }),
      seed: t.field({
        type: 'SafeInt',
        required: true,
        defaultValue: 0,
        description: 'Of the arrivals and of seeded inputs, 0 to 2³² - 1.',
      }),
      confirmServing: t.boolean({
        required: true,
        defaultValue: false,
        description: 'Drive it even if it answered others in the last five minutes: they will wait, and some will be refused.',
      }),
      priority: t.int({ description: 'Higher starts first, -100 to 100; 0 unless told otherwise.' }),
      idempotencyKey: t.string({ description: 'The same key gives the same job, however often the request is sent.' }),
    }),
  },
  {
    description:
      'Sends requests to a deployment over HTTP, at one rate after the other, as users would: at random times, without waiting for earlier answers. Tells the latency at each rate, and the highest rate that it answers within the deadline.',
    authScopes: { can: 'RUN_JOBS' },
    resolve: (_root, { input }, context) => payload(() => startLoadTest(context, context.actor, input)),
  },
  {
    interfaces: [PayloadType],
    outputFields: (t: PayloadFields<Job>) => ({
      job: t.field({ type: JobType, nullable: true, description: 'The job, waiting in the queue.', resolve: (p) => p.result }),
    }),
  },
);
