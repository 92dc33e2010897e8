import { builder, enumValues, idOf } from '../graphql/builder.ts';
import { pageArgs, pageInTurns, textKey } from '../graphql/connection.ts';
import { VersionStateType } from '../graphql/enums.ts';
import { TagFilterType } from '../tags/filter.schema.ts';
import { MetricOrderType, measuredFields } from '../training/search.schema.ts';
import { isMetricKey, metricKey } from '../training/search.ts';
import { ModelFormatType, ModelVersionConnection, PrecisionType } from './schema.ts';
import { countVersions, listVersions, listVersionsByMetric, type VersionFilter, type VersionOrder } from './versions.ts';

const ModelVersionFilterType = builder.inputType('ModelVersionFilter', {
  description: 'Which model versions.',
  fields: (t) => ({
    modelId: t.id({ description: 'Only those of this model.' }),
    nameContains: t.string({ description: 'Part of the name of the model, whatever the case.' }),
    states: t.field({ type: [VersionStateType], description: 'Only these states.' }),
    formats: t.field({ type: [ModelFormatType], description: 'Only these formats.' }),
    precisions: t.field({ type: [PrecisionType], description: 'Only these precisions, of versions that are READY.' }),
    tags: t.field({ type: [TagFilterType], description: 'Only those that have all of these tags themselves.' }),
    ...measuredFields(t),
  }),
});

const ModelVersionOrderType = builder.enumType('ModelVersionOrder', {
  description: 'Order of a list of model versions.',
  values: enumValues<VersionOrder>({ NEWEST: 'By creation, newest first.', OLDEST: 'By creation, oldest first.' }),
});

builder.queryField('modelVersions', (t) =>
  t.field({
    type: ModelVersionConnection,
    description: 'Versions of all models, newest first by default.',
    authScopes: { can: 'READ' },
    args: {
      ...pageArgs(),
      filter: t.arg({ type: ModelVersionFilterType, description: 'Which versions.' }),
      orderBy: t.arg({ type: ModelVersionOrderType, required: true, defaultValue: 'NEWEST', description: 'In which order.' }),
      byMetric: t.arg({
        type: MetricOrderType,
        description: 'In the order of a metric instead. Of several evaluations the one counts that comes first.',
      }),
    },
    resolve: async (_root, { filter, orderBy, byMetric, ...args }, context) => {
      const reader = { db: context.db, request: context };
      const wanted: VersionFilter = { ...filter, modelId: filter?.modelId ? idOf('Model', filter.modelId) : null };
      const listed = await (byMetric
        ? pageInTurns(
            `modelVersions ${byMetric.name} ${byMetric.descending}`,
            args,
            isMetricKey,
            (limit, after) => listVersionsByMetric(reader, wanted, byMetric, limit, after),
            metricKey,
          )
        : pageInTurns(
            `modelVersions ${orderBy}`,
            args,
            textKey,
            (limit, after: string | null) => listVersions(reader, wanted, orderBy, limit, after),
            ({ id }) => id,
          ));
      return { ...listed, count: () => countVersions(reader, wanted, byMetric?.name ?? null) };
    },
  }),
);
