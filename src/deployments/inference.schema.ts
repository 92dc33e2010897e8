import { every, follow, sharedReading } from '../follow.ts';
import { builder, type PayloadFields, PayloadType, payload, UserErrorType } from '../graphql/builder.ts';
import { viewerOf } from '../graphql/context.ts';
import type { HostStats } from '../inference/stats.ts';
import { type BatchResult, batchImagesMax, type ClassScore, infer, inferBatch, type LabelledDetection, type Prediction } from './infer.ts';
import type { Supervisor } from './supervise.ts';

type DeploymentStats = HostStats['models'][number];

const DeploymentStatsType = builder.objectRef<DeploymentStats>('DeploymentStats').implement({
  description: 'The requests of a revision since the inference host was started.',
  fields: (t) => ({
    name: t.exposeString('name', { description: 'Name of the deployment.' }),
    revision: t.exposeInt('version', { description: 'Number of the revision.' }),
    answered: t.expose('ok', { type: 'SafeInt', description: 'Requests with an answer.' }),
    refused: t.expose('refused', {
      type: 'SafeInt',
      description: 'Refused at once (429): the queue is full, or the answer would be late.',
    }),
    expired: t.expose('expired', { type: 'SafeInt', description: 'Not answered by the deadline (504).' }),
    cancelled: t.expose('cancelled', { type: 'SafeInt', description: 'The client went away.' }),
    failed: t.expose('failed', { type: 'SafeInt', description: 'The model failed on the input (500).' }),
    inferences: t.expose('inferences', { type: 'SafeInt', description: 'Items in the answered requests.' }),
    queueMs: t.float({ nullable: true, description: 'Mean wait of the answered requests.', resolve: (s) => s.meanMs.queue }),
    preprocessingMs: t.float({ nullable: true, description: 'Mean preprocessing.', resolve: (s) => s.meanMs.preprocessing }),
    computeMs: t.float({ nullable: true, description: 'Mean time in the engine.', resolve: (s) => s.meanMs.compute }),
    postprocessingMs: t.float({ nullable: true, description: 'Mean postprocessing.', resolve: (s) => s.meanMs.postprocessing }),
  }),
});

const InferenceStatsType = builder.objectRef<HostStats>('InferenceStats').implement({
  description: 'What the inference host does.',
  fields: (t) => ({
    queuedRequests: t.exposeInt('queuedRequests', { description: 'Requests that wait for dispatch.' }),
    dispatchedRuns: t.exposeInt('dispatchedRuns', { description: 'Runs that compute, or are ready to.' }),
    deployments: t.field({
      type: [DeploymentStatsType],
      description: 'By name, then revision.',
      extensions: { size: 20 },
      resolve: (s) => s.models,
    }),
  }),
});

const readStats = sharedReading(
  (supervisor: Supervisor) => supervisor,
  (supervisor) => supervisor.stats(),
);

builder.subscriptionFields((t) => ({
  inferenceStats: t.field({
    type: InferenceStatsType,
    description: 'The inference host, now and after each interval.',
    authScopes: { can: 'READ' },
    args: {
      deployment: t.arg.string({ description: 'Only this one.' }),
      intervalMs: t.arg.int({ required: true, defaultValue: 1000, description: 'Milliseconds between readings, 250 to 60000.' }),
    },
    subscribe: (_root, { deployment, intervalMs }, { supervisor }) =>
      follow(every(intervalMs), async function* () {
        const stats = await readStats(supervisor);
        yield { ...stats, models: stats.models.filter(({ name }) => !deployment || name === deployment) };
        return false;
      }),
    resolve: (stats) => stats as HostStats,
  }),
}));

const ClassScoreType = builder.objectRef<ClassScore>('ClassScore').implement({
  description: 'A class with its probability.',
  fields: (t) => ({
    label: t.exposeString('label', { nullable: true, description: 'Name of the class; null where the model names none.' }),
    index: t.exposeInt('index', { description: 'Place of the class in the model’s output.' }),
    probability: t.exposeFloat('probability', { description: 'From 0 to 1.' }),
  }),
});

const leastScore = 'Least score of a detection, from 0 to 1; without it the `scoreThreshold` of the deployment.';

const DetectionType = builder.objectRef<LabelledDetection>('Detection').implement({
  description: 'Something that a detector has found, with its box in pixels of the upright image.',
  fields: (t) => ({
    label: t.exposeString('label', { nullable: true, description: 'Name of the class; null where the model names none.' }),
    index: t.exposeInt('index', { description: 'Place of the class in the model’s output.' }),
    score: t.exposeFloat('score', { description: 'From 0 to 1.' }),
    x: t.float({ description: 'Left edge.', resolve: ({ box }) => box.x }),
    y: t.float({ description: 'Top edge.', resolve: ({ box }) => box.y }),
    width: t.float({ description: 'In pixels.', resolve: ({ box }) => box.width }),
    height: t.float({ description: 'In pixels.', resolve: ({ box }) => box.height }),
  }),
});

const PredictionType = builder.objectRef<Prediction>('Prediction').implement({
  description: 'What a deployment says of an image.',
  fields: (t) => ({
    revision: t.int({ description: 'The revision that answered.', resolve: (p) => Number(p.model_version) }),
    classes: t.field({
      type: [ClassScoreType],
      nullable: true,
      description: 'From a classifier: the most probable classes, in falling order.',
      extensions: { size: 5 },
      resolve: (p) => p.classes,
    }),
    detections: t.field({
      type: [DetectionType],
      nullable: true,
      description: 'From a detector: what it has found, in falling order of score.',
      extensions: { size: 100 },
      resolve: (p) => p.detections,
    }),
  }),
});

builder.relayMutationField(
  'infer',
  {
    inputFields: (t) => ({
      deployment: t.string({ required: true, description: 'Name of the deployment.' }),
      image: t.string({ required: true, description: 'A JPEG, PNG, WebP, TIFF or BMP file in base64, up to about 1.4 MB.' }),
      top: t.int({ required: true, defaultValue: 5, description: 'How many classes to name, from the most probable on.' }),
      score: t.float({ description: leastScore }),
    }),
  },
  {
    description: 'Sends an image to a deployment. Services send it to the inference host itself: `snippet` of the deployment shows how.',
    authScopes: { can: 'TRY_DEPLOYMENTS' },
    resolve: (_root, { input }, context) => payload(() => infer(context, viewerOf(context), input)),
  },
  {
    interfaces: [PayloadType],
    outputFields: (t: PayloadFields<Prediction>) => ({
      prediction: t.field({ type: PredictionType, nullable: true, description: 'What the model says.', resolve: (p) => p.result }),
    }),
  },
);

const BatchResultType = builder.objectRef<BatchResult>('InferBatchResult').implement({
  description: 'Of one image: a prediction or an error.',
  fields: (t) => ({
    prediction: t.field({ type: PredictionType, nullable: true, description: 'What the model says.', resolve: (r) => r.prediction }),
    error: t.field({ type: UserErrorType, nullable: true, description: 'Why there is no prediction.', resolve: (r) => r.error }),
  }),
});

builder.relayMutationField(
  'inferBatch',
  {
    inputFields: (t) => ({
      deployment: t.string({ required: true, description: 'Name of the deployment.' }),
      images: t.stringList({
        required: true,
        description: `1 to ${batchImagesMax} JPEG, PNG, WebP, TIFF or BMP files in base64, up to about 1.4 MB together.`,
      }),
      top: t.int({ required: true, defaultValue: 5, description: 'How many classes to name for each.' }),
      score: t.float({ description: leastScore }),
    }),
  },
  {
    description: 'Sends images to a deployment, each as a request of its own.',
    authScopes: { can: 'TRY_DEPLOYMENTS' },
    resolve: (_root, { input }, context) => payload(() => inferBatch(context, viewerOf(context), input)),
  },
  {
    interfaces: [PayloadType],
    outputFields: (t: PayloadFields<BatchResult[]>) => ({
      results: t.field({
        type: [BatchResultType],
        nullable: true,
        description: 'In the order of the images.',
        extensions: { size: 10 },
        resolve: (p) => p.result,
      }),
    }),
  },
);
