import { ApiError, notFound } from '../errors.ts';
import { builder, idOf } from '../graphql/builder.ts';
import { findJob } from '../jobs/jobs.ts';
import { JobType } from '../jobs/schema.ts';
import { type ComparedMetric, type ComparedSetting, comparedMax, comparedMin, compareJobs, type JobComparison } from './compare.ts';

const ofEachJob = { list: false, items: true } as const;

const ComparedSettingType = builder.objectRef<ComparedSetting>('ComparedSetting').implement({
  description: 'A setting that is not the same in all compared trainings.',
  fields: (t) => ({
    name: t.exposeString('name', {
      description: 'A hyperparameter, or preset, datasetVersionId, init, seed, device, cpuThreads, processes.',
    }),
    values: t.field({
      type: ['JSON'],
      nullable: ofEachJob,
      description: 'Its value in each training, in their order; null where the preset does not have it.',
      resolve: (s) => s.values,
    }),
  }),
});

const ComparedMetricType = builder.objectRef<ComparedMetric>('ComparedMetric').implement({
  description: 'A metric of the compared trainings: lists have a value for each, null where it has not measured it.',
  fields: (t) => ({
    name: t.exposeString('name', { description: 'Such as `val.top1`.' }),
    last: t.field({ type: ['Float'], nullable: ofEachJob, description: 'Its last value.', resolve: (m) => m.last }),
    best: t.field({
      type: ['Float'],
      nullable: ofEachJob,
      description: 'Its largest value; of a loss the smallest.',
      resolve: (m) => m.best,
    }),
    bestEpochs: t.field({
      type: ['Int'],
      nullable: ofEachJob,
      description: 'The epoch, from 1, that reached the best value: the first of several.',
      resolve: (m) => m.bestEpochs,
    }),
  }),
});

const JobComparisonType = builder.objectRef<JobComparison>('JobComparison').implement({
  description: 'Trainings beside each other.',
  fields: (t) => ({
    jobs: t.field({
      type: [JobType],
      description: 'The trainings in the order of `ids`; their `metrics` are the curves.',
      extensions: { size: 4 },
      resolve: (c) => c.jobs,
    }),
    settings: t.field({
      type: [ComparedSettingType],
      description: 'The settings that differ.',
      extensions: { size: 10 },
      resolve: (c) => c.settings,
    }),
    metrics: t.field({
      type: [ComparedMetricType],
      description: 'What they have measured, sorted by name.',
      extensions: { size: 10 },
      resolve: (c) => c.metrics,
    }),
  }),
});

builder.queryField('compareJobs', (t) =>
  t.field({
    type: JobComparisonType,
    description: 'In what trainings differ, and what they reached. Ended or not.',
    extensions: { cost: 400 },
    authScopes: { can: 'READ' },
    args: { ids: t.arg.idList({ required: true, description: `${comparedMin} to ${comparedMax} jobs of the kind TRAIN.` }) },
    resolve(_root, { ids }, context) {
      if (ids.length < comparedMin || ids.length > comparedMax)
        throw new ApiError('INVALID', `${comparedMin} to ${comparedMax} trainings are compared; \`ids\` names ${ids.length}.`);
      const jobs = ids.map((id) => findJob(context.db, idOf('Job', String(id))) ?? notFound('job'));
      return compareJobs(context.db, context, jobs);
    },
  }),
);
