import { builder, enumValues } from '../graphql/builder.ts';
import type { Operator } from './search.ts';

const OperatorType = builder.enumType('Operator', {
  description: 'How a value is compared with that of a filter.',
  values: enumValues<Operator>({
    EQUAL: 'It is the same.',
    NOT_EQUAL: 'It is another.',
    LESS: 'It is smaller.',
    AT_MOST: 'It is smaller or the same.',
    GREATER: 'It is larger.',
    AT_LEAST: 'It is larger or the same.',
  }),
});

export const MetricFilterType = builder.inputType('MetricFilter', {
  description: 'A metric that an evaluation must have, such as `{name: "top1", value: 0.9}`: at least 0.9.',
  fields: (t) => ({
    name: t.string({ required: true, description: 'Its name in `Evaluation.metrics`, such as `top1`, `macroTop1` or `map50`.' }),
    operator: t.field({ type: OperatorType, required: true, defaultValue: 'AT_LEAST', description: 'How it is compared.' }),
    value: t.float({ required: true, description: 'What it is compared with.' }),
  }),
});

const HyperparameterFilterType = builder.inputType('HyperparameterFilter', {
  description: 'A hyperparameter that a training must have, such as `{name: "batchSize", operator: AT_MOST, value: 32}`.',
  fields: (t) => ({
    name: t.string({ required: true, description: 'Its name in `Preset.hyperparameters`.' }),
    operator: t.field({
      type: OperatorType,
      required: true,
      defaultValue: 'EQUAL',
      description: 'How it is compared; a text or a boolean only by EQUAL and NOT_EQUAL.',
    }),
    value: t.field({ type: 'JSON', required: true, description: 'A number, a text or a boolean.' }),
  }),
});

export const MetricOrderType = builder.inputType('MetricOrder', {
  description: 'An order by a metric: what does not have it is left out.',
  fields: (t) => ({
    name: t.string({ required: true, description: 'Its name in `Evaluation.metrics`, such as `top1`.' }),
    descending: t.boolean({ required: true, defaultValue: true, description: 'Whether the largest value comes first.' }),
  }),
});

/** Fields of the filters of jobs, models and versions. `whose`: what must have it. */
export const measuredFields = (t: Parameters<NonNullable<Parameters<typeof builder.inputType>[1]['fields']>>[0]) => ({
  metrics: t.field({ type: [MetricFilterType], description: 'Only those with an evaluation that has this metric, for each of at most 5.' }),
  hyperparameters: t.field({
    type: [HyperparameterFilterType],
    description:
      'Only those of trainings that have all of these, at most 5; of a version the training that it was made by or converted from.',
  }),
});
