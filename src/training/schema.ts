import { builder, enumValues } from '../graphql/builder.ts';
import { TaskType } from '../graphql/enums.ts';
import { isInstalled } from '../jobs/extras.ts';
import { type HyperparameterInfo, hyperparametersOf } from '../jobs/hyperparameterInfo.ts';
import { type PresetName, presets } from '../jobs/presets.ts';
import type { Dimension } from '../jobs/searchSpace.ts';

const HyperparameterTypeType = builder.enumType('HyperparameterType', {
  description: 'What values a hyperparameter takes.',
  values: enumValues<HyperparameterInfo['type']>({
    INT: 'A whole number.',
    FLOAT: 'A number.',
    ENUM: 'One of `values`.',
    BOOLEAN: 'True or false.',
  }),
});

const SearchConditionType = builder.objectRef<NonNullable<Dimension['when']>>('SearchCondition').implement({
  description: 'When a dimension of a search space has an effect.',
  fields: (t) => ({
    name: t.exposeString('name', { description: 'The other dimension.' }),
    values: t.field({ type: ['JSON'], description: 'The values of that one with which this one has an effect.', resolve: (w) => w.values }),
  }),
});

const DimensionTypeType = builder.enumType('SearchDimensionType', {
  description: 'How the values of a dimension are drawn.',
  values: enumValues<Dimension['type']>({
    INT: 'Whole numbers of a range.',
    FLOAT: 'Numbers of a range.',
    CHOICE: 'One of `choices`.',
  }),
});

export const SearchDimensionType = builder.objectRef<Dimension>('SearchDimension').implement({
  description: 'What a study searches of one hyperparameter.',
  fields: (t) => ({
    name: t.exposeString('name', { description: 'The hyperparameter.' }),
    type: t.expose('type', { type: DimensionTypeType, description: 'How its values are drawn.' }),
    low: t.exposeFloat('low', { nullable: true, description: 'Smallest value; null for a CHOICE.' }),
    high: t.exposeFloat('high', { nullable: true, description: 'Largest value; null for a CHOICE.' }),
    log: t.exposeBoolean('log', { description: 'Whether the logarithm is searched evenly: for values that differ by factors.' }),
    step: t.exposeFloat('step', { nullable: true, description: 'Distance of two values, counted from `low`; null where there is none.' }),
    choices: t.field({ type: ['JSON'], nullable: true, description: 'The values of a CHOICE, else null.', resolve: (d) => d.choices }),
    when: t.field({
      type: SearchConditionType,
      nullable: true,
      description: 'It has an effect only under this condition; null: always.',
      resolve: (d) => d.when,
    }),
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
      description: 'The value of a training that does not say another: a number, a string or a boolean.',
      resolve: (h) => h.default,
    }),
    minimum: t.exposeFloat('minimum', {
      nullable: true,
      description: 'Smallest value; for some a FLOAT must be above it. Null for an ENUM.',
    }),
    maximum: t.exposeFloat('maximum', { nullable: true, description: 'Largest value; null for an ENUM.' }),
    values: t.exposeStringList('values', { nullable: true, description: 'The values of an ENUM, else null.' }),
    search: t.field({
      type: SearchDimensionType,
      nullable: true,
      description: 'What a study searches of it unless its user says another space; null: nothing.',
      resolve: (h) => h.search,
    }),
  }),
});

const PresetType = builder.objectRef<PresetName>('Preset').implement({
  description: 'A topology with its task and its hyperparameters: what a training starts from.',
  fields: (t) => ({
    name: t.string({ description: 'Its name in `startTraining` and `createModel`.', resolve: (name) => name }),
    title: t.string({ description: 'What people call it.', resolve: (name) => presets[name].title }),
    task: t.field({ type: TaskType, description: 'What its models do with an image.', resolve: (name) => presets[name].task }),
    description: t.string({ description: 'Where it comes from and how large it is.', resolve: (name) => presets[name].description }),
    parameters: t.int({
      description: 'Trained numbers; with 1,000 classes for CLASSIFICATION, 80 for DETECTION.',
      resolve: (name) => presets[name].parameters,
    }),
    macs: t.field({
      type: 'SafeInt',
      description:
        'Multiplications with an addition for one image of the default `imageSize`, in convolutions and matrix products; with as many classes.',
      resolve: (name) => presets[name].macs,
    }),
    hasPublicWeights: t.boolean({
      description: 'Whether a training can start from `pretrained` weights: torchvision’s, learned on ImageNet.',
      resolve: (name) => presets[name].hasPublicWeights,
    }),
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
    description: 'What can be trained here. Those of timm are listed where it is installed.',
    extensions: { size: 40 },
    authScopes: { can: 'READ' },
    args: { task: t.arg({ type: TaskType, description: 'Only presets for this task.' }) },
    resolve: (_root, { task }) =>
      (Object.keys(presets) as PresetName[]).filter((name) => isInstalled(name) && (!task || presets[name].task === task)),
  }),
);
