import { builder, enumValues, idOf } from '../graphql/builder.ts';
import { pageArgs, pageInTurns, totalCount } from '../graphql/connection.ts';
import { TagFilterType } from '../tags/filter.schema.ts';
import { MetricOrderType, measuredFields } from '../training/search.schema.ts';
import { isMetricKey, metricKey } from '../training/search.ts';
import { countListed, isJobKey, type JobFilter, type JobOrder, jobKey, listJobs, listJobsByMetric } from './list.ts';
import { JobKindType, JobStateType, JobType } from './schema.ts';

const JobConnection = builder.connectionObject(
  { type: JobType, name: 'JobConnection', description: 'A page of jobs.', fields: totalCount },
  { description: 'A job in a page.' },
);

export const JobFilterInput = builder.inputType('JobFilter', {
  description: 'Which jobs.',
  fields: (t) => ({
    kinds: t.field({ type: [JobKindType], description: 'Only these kinds.' }),
    states: t.field({ type: [JobStateType], description: 'Only these states.' }),
    createdById: t.id({ description: 'Only those that this user started.' }),
    parentId: t.id({ description: 'Only those that this job has made.' }),
    modelId: t.id({ description: 'Only those that work on a version of this model, or make one.' }),
    modelVersionId: t.id({ description: 'Only those that work on this model version, or have made it.' }),
    datasetId: t.id({ description: 'Only those that work on a version of this dataset, or make one.' }),
    datasetVersionId: t.id({ description: 'Only those that work on this dataset version, or make it.' }),
    tags: t.field({ type: [TagFilterType], description: 'Only those that have all of these tags.' }),
    ...measuredFields(t),
    text: t.string({
      description: 'Only those with this text in the name of a model, a dataset or the creator, or in the failure, whatever the case.',
    }),
    createdAfter: t.field({ type: 'DateTime', description: 'Only those from this moment on.' }),
    createdBefore: t.field({ type: 'DateTime', description: 'Only those before this moment.' }),
  }),
});

const subjectTypes = {
  modelId: 'Model',
  modelVersionId: 'ModelVersion',
  datasetId: 'Dataset',
  datasetVersionId: 'DatasetVersion',
} as const;

/** With the ids of the database. */
export const jobFilterOf = (filter: typeof JobFilterInput.$inferInput | null | undefined): JobFilter => ({
  ...filter,
  createdById: filter?.createdById ? idOf('User', filter.createdById) : null,
  parentId: filter?.parentId ? idOf('Job', filter.parentId) : null,
  subjectIds: Object.entries(subjectTypes).flatMap(([name, type]) => {
    const id = filter?.[name as keyof typeof subjectTypes];
    return id ? [idOf(type, id)] : [];
  }),
});

const JobOrderType = builder.enumType('JobOrder', {
  description: 'Order of a list of jobs.',
  values: enumValues<JobOrder>({ NEWEST: 'By creation, newest first.', OLDEST: 'By creation, oldest first.' }),
});

builder.queryFields((t) => ({
  jobs: t.field({
    type: JobConnection,
    description: 'Jobs, newest first by default.',
    authScopes: { can: 'READ' },
    args: {
      ...pageArgs(),
      filter: t.arg({ type: JobFilterInput, description: 'Which jobs.' }),
      orderBy: t.arg({ type: JobOrderType, required: true, defaultValue: 'NEWEST', description: 'In which order.' }),
      byMetric: t.arg({ type: MetricOrderType, description: 'In the order of a metric that they have measured instead.' }),
    },
    resolve: async (_root, { filter, orderBy, byMetric, ...args }, context) => {
      const wanted = jobFilterOf(filter);
      const reader = { db: context.db, request: context };
      const listed = await (byMetric
        ? pageInTurns(
            `jobs ${byMetric.name} ${byMetric.descending}`,
            args,
            isMetricKey,
            (limit, after) => listJobsByMetric(reader, wanted, byMetric, limit, after),
            metricKey,
          )
        : pageInTurns(`jobs ${orderBy}`, args, isJobKey, (limit, after) => listJobs(reader, wanted, orderBy, limit, after), jobKey));
      return { ...listed, count: () => countListed(reader, wanted, byMetric?.name ?? null) };
    },
  }),
}));
