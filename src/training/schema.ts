import { builder, enumValues } from '../graphql/builder.ts';
import { TaskType } from '../graphql/enums.ts';
import { type HyperparameterInfo, hyperparametersOf, type PresetName, presets } from '../jobs/presets.ts';

const HyperparameterTypeType = builder.enumType('HyperparameterType', {
  description: 'What values a hyperparameter takes.',
  values: enumValues<HyperparameterInfo['type']>({
    INT: 'A whole number.',
    FLOAT: 'A number.',
    ENUM: 'One of `values`.',
  }),
});

const HyperparameterType = builder.objectRef<HyperparameterInfo>('Hyperparameter').implement({
  description: 'One setting of a training.',
  fields: (t) => ({
    name: t.exposeString('name', { description: 'Its key in the input of `startTraining`.' }),
    type: t.expose('type', { type: HyperparameterTypeType, description: 'What values it takes.' }),
    description: t.exposeString('description', { description: 'What it does.' }),
    default: t.field({
      type: 'JSON',
      description: 'The value of a training that does not say another: a number or a string.',
      resolve: (h) => h.default,
    }),
    minimum: t.exposeFloat('minimum', {
      nullable: true,
      description: 'Smallest value; for some a FLOAT must be above it. Null for an ENUM.',
    }),
    maximum: t.exposeFloat('maximum', { nullable: true, description: 'Largest value; null for an ENUM.' }),
    values: t.exposeStringList('values', { nullable: true, description: 'The values of an ENUM, else null.' }),
  }),
});

const PresetType = builder.objectRef<PresetName>('Preset').implement({
  description: 'A topology with its task and its hyperparameters: what a training starts from.',
  fields: (t) => ({
    name: t.string({ description: 'Its name in `startTraining` and `createModel`.', resolve: (name) => name }),
    title: t.string({ description: 'What people call it.', resolve: (name) => presets[name].title }),
    task: t.field({ type: TaskType, description: 'What its models do with an image.', resolve: (name) => presets[name].task }),
    description: t.string({ description: 'Where it comes from and how large it is.', resolve: (name) => presets[name].description }),
    hyperparameters: t.field({
      type: [HyperparameterType],
      description: 'In the order of a form.',
      extensions: { size: 2 },
      resolve: hyperparametersOf,
    }),
  }),
});

builder.queryField('presets', (t) =>
  t.field({
    type: [PresetType],
    description: 'What can be trained.',
    extensions: { size: 5 },
    authScopes: { can: 'READ' },
    args: { task: t.arg({ type: TaskType, description: 'Only presets for this task.' }) },
    resolve: (_root, { task }) => (Object.keys(presets) as PresetName[]).filter((name) => !task || presets[name].task === task),
  }),
);
