import { builder, idOf, type PayloadFields, PayloadType, payload } from '../graphql/builder.ts';
import { opaqueId } from '../naming.ts';
import { DeviceType } from '../training/jobs.schema.ts';
import { deleteStudy } from './delete.ts';
import type { StudyPlan } from './plan.ts';
import { ObjectiveType, SamplerType, StudyType } from './schema.ts';
import { extendStudy, pauseStudy, type StartedStudy, startTuning } from './start.ts';
import type { Study } from './tables.ts';

const ConditionInput = builder.inputType('SearchConditionInput', {
  description: 'When a dimension has an effect, such as the momentum only with SGD.',
  fields: (t) => ({
    name: t.string({ required: true, description: 'Another dimension with `choices`.' }),
    values: t.field({ type: ['JSON'], required: true, description: 'The values of that one with which this one has an effect.' }),
  }),
});

const DimensionInput = builder.inputType('SearchDimensionInput', {
  description: 'What is searched of a hyperparameter: a range or choices.',
  fields: (t) => ({
    name: t.string({ required: true, description: 'The hyperparameter.' }),
    low: t.float({ description: 'Smallest value of a range.' }),
    high: t.float({ description: 'Largest value of a range.' }),
    log: t.boolean({ description: 'Searches the logarithm evenly: for values that differ by factors, such as a learning rate.' }),
    step: t.float({ description: 'Only every value at this distance, counted from `low`.' }),
    choices: t.field({ type: ['JSON'], description: 'The values, instead of a range.' }),
    when: t.field({ type: ConditionInput, description: 'It has an effect only then. Otherwise the hyperparameter has its default.' }),
  }),
});

const HalvingInput = builder.inputType('HalvingInput', {
  description: 'Successive halving: stops weak trials early.',
  fields: (t) => ({
    firstEpoch: t.int({ required: true, description: 'All trials of a generation train so many epochs; then they are compared.' }),
    reduction: t.int({
      required: true,
      defaultValue: 3,
      description: 'One in so many continues from its checkpoint, and is compared again after so many times the epochs. 2 to 10.',
    }),
  }),
});

const PlanType = builder.objectRef<StudyPlan>('StudyPlan').implement({
  description: 'How much work a study is.',
  fields: (t) => ({
    trials: t.exposeInt('trials', { description: 'Trials in all. A grid ends with its last point.' }),
    generations: t.exposeInt('generations', { description: 'Generations in all.' }),
    epochs: t.exposeInt('epochs', { description: 'Epochs in all, at most: equal trials are trained once.' }),
    estimatedMs: t.expose('estimatedMs', {
      type: 'SafeInt',
      nullable: true,
      description:
        'Roughly how long the trials take on all slots, with the start of each training; null where no training of the preset tells how fast they are.',
    }),
    basedOn: t.exposeInt('basedOn', { description: 'Earlier trainings of the preset from whose speed that is estimated, at most 20.' }),
  }),
});

builder.relayMutationField(
  'startTuning',
  {
    inputFields: (t) => ({
      modelName: t.string({
        required: true,
        description: 'Model that the best trials become versions of; made when there is none of this name.',
      }),
      datasetVersionId: t.id({ required: true, description: 'What the trials learn from: its train split, judged by its val split.' }),
      preset: t.string({ required: true, description: 'Name of a preset: the query `presets` lists them with their default spaces.' }),
      space: t.field({
        type: [DimensionInput],
        description: 'What is searched, at most 30 hyperparameters; the space of the preset (`Hyperparameter.search`) without it.',
      }),
      fixed: t.field({
        type: 'JSON',
        description: 'An object with hyperparameters that every trial has, such as `epochs` and `imageSize`.',
      }),
      objectives: t.field({
        type: [ObjectiveType],
        description: 'What to optimise, 1 to 4; TOP1 or MAP5095 without it. With several the result is a Pareto front.',
      }),
      sampler: t.field({ type: SamplerType, required: true, defaultValue: 'NSGA2', description: 'What proposes the trials.' }),
      population: t.int({ required: true, defaultValue: 8, description: 'Trials of a generation, 2 to 100.' }),
      generations: t.int({ description: 'Generations; 5 without it and without `trials`. A grid then has all its points.' }),
      trials: t.int({ description: 'Trials in all, at most 1000, instead of `generations`.' }),
      hoursMax: t.float({
        description:
          'No generation begins later than so many hours after the start of the study, pauses included: it then ends with the trials that it has. ' +
          'How many these are depends on the speed of the machine.',
      }),
      target: t.float({
        description: 'Value of the first objective, such as 0.95: with the generation that reaches it the study ends.',
      }),
      seed: t.field({
        type: 'SafeInt',
        required: true,
        defaultValue: 0,
        description: 'Of the proposals and of each training: the same seed gives the same trials. 0 to 2³² - 1.',
      }),
      halving: t.field({ type: HalvingInput, description: 'Stops weak trials early; without it all train to their end.' }),
      begin: t.field({
        type: ['JSON'],
        description: 'Trials to begin with: objects with values of the space, the defaults for the rest. `[{}]` begins with the defaults.',
      }),
      beginStudyId: t.id({
        description:
          'An earlier study whose front the trials begin with: behind those of `begin`, best first, until the first generation is full. They have ' +
          'its values of the hyperparameters that are searched here too, and the defaults for the rest.',
      }),
      registerMax: t.int({
        required: true,
        defaultValue: 1,
        description: 'How many of the front are trained to their end, registered and converted when the study ends, 0 to 10.',
      }),
      pretrained: t.boolean({
        required: true,
        defaultValue: false,
        description: 'Whether the trials begin with the public weights of the preset, and not with random ones.',
      }),
      cpuThreads: t.int({ description: 'Threads of PyTorch in each trial; by default the cores divided by the slots.' }),
      device: t.field({ type: DeviceType, required: true, defaultValue: 'AUTO', description: 'What the trials compute on.' }),
      priority: t.int({ description: 'Of its jobs: higher starts first, -100 to 100; 0 unless told otherwise.' }),
      dryRun: t.boolean({ required: true, defaultValue: false, description: 'Checks the input and tells the plan, and starts nothing.' }),
      idempotencyKey: t.string({
        description: 'The same key gives the same study, however often the request is sent; with another input it is IDEMPOTENCY_CONFLICT.',
      }),
    }),
  },
  {
    description:
      'Starts a study: searches hyperparameters by training with them, in generations. Every trial is a job of its own. The same seed gives the same trials, whatever fails meanwhile.',
    authScopes: { can: 'RUN_JOBS' },
    resolve: (_root, { input: { pretrained, ...input } }, context) =>
      payload(() =>
        startTuning(context, context.actor, {
          ...input,
          datasetVersionId: idOf('DatasetVersion', input.datasetVersionId),
          beginStudyId: input.beginStudyId && idOf('Study', input.beginStudyId),
          init: { from: pretrained ? 'PRETRAINED' : 'SCRATCH' },
          device: input.device.toLowerCase(),
        }),
      ),
  },
  {
    interfaces: [PayloadType],
    outputFields: (t: PayloadFields<StartedStudy>) => ({
      study: t.field({ type: StudyType, nullable: true, description: 'The study; null of a dry run.', resolve: (p) => p.result?.study }),
      plan: t.field({ type: PlanType, nullable: true, description: 'How much work it is.', resolve: (p) => p.result?.plan }),
    }),
  },
);

const studyPayload = {
  interfaces: [PayloadType],
  outputFields: (t: PayloadFields<Study>) => ({
    study: t.field({ type: StudyType, nullable: true, description: 'The study as it is now.', resolve: (p) => p.result }),
  }),
};

builder.relayMutationField(
  'pauseStudy',
  { inputFields: (t) => ({ studyId: t.id({ required: true, description: 'The study.' }) }) },
  {
    description: 'Pauses a study: trainings that run write a checkpoint and go back into the queue, and none starts until `resumeStudy`.',
    authScopes: { can: 'RUN_JOBS' },
    resolve: (_root, { input }, context) => payload(() => pauseStudy(context, context.actor, idOf('Study', input.studyId), true)),
  },
  studyPayload,
);

builder.relayMutationField(
  'resumeStudy',
  { inputFields: (t) => ({ studyId: t.id({ required: true, description: 'The study.' }) }) },
  {
    description: 'Resumes a paused study where it was.',
    authScopes: { can: 'RUN_JOBS' },
    resolve: (_root, { input }, context) => payload(() => pauseStudy(context, context.actor, idOf('Study', input.studyId), false)),
  },
  studyPayload,
);

builder.relayMutationField(
  'extendStudy',
  {
    inputFields: (t) => ({
      studyId: t.id({ required: true, description: 'The study: it runs, or has succeeded.' }),
      generations: t.int({ required: true, description: 'Further generations, 1 or more; at most 1000 trials in all.' }),
    }),
  },
  {
    description: 'Gives a study more generations. One that has succeeded continues in a new job, behind its last trial.',
    authScopes: { can: 'RUN_JOBS' },
    resolve: (_root, { input }, context) =>
      payload(() => extendStudy(context, context.actor, idOf('Study', input.studyId), input.generations)),
  },
  studyPayload,
);

builder.relayMutationField(
  'deleteStudy',
  { inputFields: (t) => ({ studyId: t.id({ required: true, description: 'A study that has ended.' }) }) },
  {
    description:
      'Deletes a study for good: its trials, its events, and its jobs with all that `deleteJob` deletes. The trainings and conversions of versions ' +
      'that are still there stay. IN_USE while it runs, or one of its jobs does.',
    authScopes: { can: 'DELETE' },
    resolve: (_root, { input }, context) => payload(() => deleteStudy(context, context.actor, idOf('Study', input.studyId))),
  },
  {
    interfaces: [PayloadType],
    outputFields: (t: PayloadFields<Study>) => ({
      deletedStudyId: t.id({
        nullable: true,
        description: 'The id of the study, which nothing has any more.',
        resolve: (p) => p.result && opaqueId('Study', p.result.id),
      }),
    }),
  },
);
