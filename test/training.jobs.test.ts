import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { comparisonsOf } from '../src/training/gates.ts';
import { requireGate } from '../src/training/register.ts';
import { digitFolders } from './support/images.ts';
import { type TestServer, withServer } from './support/server.ts';
import { type Api, ask, datasetVersionOf, digitsVersion, jobWhen, mutate, succeeded, trained } from './support/training.ts';

const versionFields = `id number state format origin precision weightsHash lineageHash labels parent { number } gate
  evaluations { split engine images top1 top5 loss macroTop1 job { kind } }`;

/** Of the trainer: no public weights here, and nobody who has them. */
const offline = { HTTPS_PROXY: 'http://127.0.0.1:9', TORCH_HOME: '/nowhere' };

interface Version {
  id: string;
  number: number;
  weightsHash: string;
  lineageHash: string;
  gate: object;
  evaluations: { engine: string; top1: number; loss: number }[];
}

describe('a training on real digits', () => {
  let api: Api;
  let dataset: string;
  let training: Awaited<ReturnType<typeof trained>>;
  let jobId: string;
  let ended: () => void;
  let server: Promise<void>;

  const version = async (number: number): Promise<Version> => {
    const { data, errors } = await ask(api, `{ model(name: "digits") { versions(first: 10) { nodes { ${versionFields} } } } }`);
    expect(errors).toBeUndefined();
    return data.model.versions.nodes.find((v: Version) => v.number === number);
  };

  beforeAll(async () => {
    const started = await new Promise<TestServer>((resolve, reject) => {
      server = withServer(async (running) => {
        await new Promise<void>((done) => {
          ended = done;
          resolve(running);
        });
      }, offline);
      server.catch(reject);
    });
    api = { url: started.url, token: await started.as('ENGINEER') };
    dataset = await digitsVersion(api, [0, 1, 2], 20);
    const hyperparameters = { imageSize: 32, epochs: 2, batchSize: 8, flip: 0, warmupSteps: 4 };
    const input = { modelName: 'digits', datasetVersionId: dataset, preset: 'resnet18', hyperparameters, seed: 7 };
    const { job } = await mutate(api, 'startTraining', { ...input, idempotencyKey: 'one' }, 'job { id spec }');
    jobId = job.id;
    training = await trained(api, jobId);
  }, 600_000);

  afterAll(async () => {
    ended();
    await server;
  });

  test('registers the checkpoint; its child registers, behind the gate, the ONNX version made of it', async () => {
    expect(training.children).toMatchObject([{ kind: 'CONVERT', state: 'SUCCEEDED', parent: { id: jobId } }]);
    const { data } = await ask(api, 'query ($id: ID!) { jobs(filter: {parentId: $id}) { nodes { id } } }', { id: jobId });
    expect(data.jobs.nodes).toEqual(training.children.map(({ id }: { id: string }) => ({ id })));
    const [checkpoint, onnx] = [await version(1), await version(2)];
    expect(checkpoint).toMatchObject({
      number: 1,
      state: 'READY',
      format: 'CHECKPOINT',
      origin: 'TRAINED',
      labels: ['0', '1', '2'],
      parent: null,
    });
    expect(onnx).toMatchObject({
      number: 2,
      state: 'READY',
      format: 'ONNX',
      origin: 'CONVERTED',
      precision: 'FP32',
      parent: { number: 1 },
    });
    expect(onnx.weightsHash).toBe(checkpoint.weightsHash);
    expect(onnx.gate).toMatchObject({ problems: [], beyondTolerance: 0, images: 12 });
    expect(onnx.lineageHash).not.toBe(checkpoint.lineageHash);
    expect(checkpoint.evaluations).toMatchObject([
      { split: 'VAL', images: 12, engine: expect.stringMatching(/^torch \d/), job: { kind: 'TRAIN' } },
    ]);
    expect(onnx.evaluations).toMatchObject([
      { split: 'VAL', images: 12, engine: expect.stringMatching(/^onnxruntime \d/), job: { kind: 'CONVERT' } },
    ]);
    const [[learnt], [converted]] = [checkpoint.evaluations, onnx.evaluations];
    expect(converted?.top1).toBe(learnt?.top1);
    expect(converted?.loss).toBeCloseTo(learnt?.loss ?? Number.NaN, 4);
  });

  test('says what each job works on and has made, as objects and as ids that `node` takes', async () => {
    const fields = `id kind spec result model { id name } datasetVersion { id number dataset { name } } modelVersions { id number job { id } }
      evaluation { id top1 modelVersion { number } datasetVersion { id } } report { id }`;
    const { data, errors } = await ask(api, `{ jobs(filter: {kinds: [TRAIN, CONVERT]}, orderBy: OLDEST) { nodes { ${fields} } } }`);
    expect(errors).toBeUndefined();
    const [train, convert] = data.jobs.nodes;
    const [checkpoint, onnx] = [await version(1), await version(2)];
    const common = { model: { name: 'digits' }, datasetVersion: { id: dataset, number: 1, dataset: { name: 'digits' } }, report: null };
    expect(train).toMatchObject({
      ...common,
      spec: { datasetVersionId: dataset, modelId: train.model.id },
      result: { modelVersionId: checkpoint.id, conversionJobId: convert.id, evaluationId: train.evaluation.id },
      modelVersions: [{ id: checkpoint.id, job: { id: train.id } }],
      evaluation: { modelVersion: { number: 1 }, datasetVersion: { id: dataset } },
    });
    expect(convert).toMatchObject({
      ...common,
      spec: { modelVersionId: checkpoint.id, datasetVersionId: dataset },
      result: { modelVersionId: onnx.id },
      modelVersions: [
        { id: checkpoint.id, job: { id: train.id } },
        { id: onnx.id, job: { id: convert.id } },
      ],
      evaluation: { top1: expect.any(Number), modelVersion: { number: 2 } },
    });
    const ids = [
      train.spec.modelId,
      train.spec.datasetVersionId,
      ...['modelVersionId', 'evaluationId', 'conversionJobId'].map((key) => train.result[key]),
    ];
    const found = await ask(api, 'query ($ids: [ID!]!) { nodes(ids: $ids) { id __typename } }', { ids });
    const types = ['Model', 'DatasetVersion', 'ModelVersion', 'Evaluation', 'Job'];
    expect(found.data.nodes).toEqual(ids.map((id, n) => ({ id, __typename: types[n] })));
  });

  test('is found by its model, its versions, its dataset, a part of their names, and the time', async () => {
    const listed = async (filter: object) => {
      const { data, errors } = await ask(api, 'query ($f: JobFilter) { jobs(filter: $f, orderBy: OLDEST) { nodes { kind createdAt } } }', {
        f: filter,
      });
      expect(errors).toBeUndefined();
      return data.jobs.nodes as { kind: string; createdAt: string }[];
    };
    const kinds = async (filter: object) => (await listed(filter)).map(({ kind }) => kind);
    const { data } = await ask(api, '{ model(name: "digits") { id } dataset(name: "digits") { id } }');
    const other = await datasetVersionOf(api, 'other', await digitFolders([0, 1], 5));
    const all = ['IMPORT_DATASET', 'TRAIN', 'CONVERT'];
    expect(await kinds({ datasetId: data.dataset.id })).toEqual(all);
    expect(await kinds({ datasetVersionId: dataset })).toEqual(all);
    expect(await kinds({ datasetVersionId: other })).toEqual(['IMPORT_DATASET']);
    expect(await kinds({ modelId: data.model.id })).toEqual(['TRAIN', 'CONVERT']);
    expect(await kinds({ modelVersionId: (await version(2)).id })).toEqual(['CONVERT']);
    expect(await kinds({ modelVersionId: (await version(1)).id, datasetVersionId: dataset })).toEqual(['TRAIN', 'CONVERT']);
    expect(await kinds({ modelId: data.model.id, datasetVersionId: other })).toEqual([]);
    expect(await kinds({ text: 'DIGI' })).toEqual(all);
    expect(await kinds({ text: 'othe' })).toEqual(['IMPORT_DATASET']);
    expect(await kinds({ text: 'ENGINEER' })).toEqual(['IMPORT_DATASET', 'TRAIN', 'CONVERT', 'IMPORT_DATASET']);
    expect(await kinds({ text: '%' })).toEqual([]);
    const [, train, convert] = await listed({});
    expect(await kinds({ createdAfter: train?.createdAt, createdBefore: convert?.createdAt })).toEqual(['TRAIN']);
  });

  test('reports its phases in order, and keeps its curves', async () => {
    const phasesOf = ({ events }: { events: { phase?: string }[] }) => events.flatMap((e) => e.phase ?? []);
    const phases = phasesOf(training);
    expect(phases.filter((p, i) => p !== phases[i - 1]).slice(0, 4)).toEqual(['weights', 'caching', 'training', 'validation']);
    expect(phases.at(-1)).toBe('validation');
    expect(phasesOf(training.children[0])).toEqual(['weights', 'export', 'gate', 'evaluation']);
    const { data } = await ask(
      api,
      '{ jobs(first: 1, filter: {kinds: [TRAIN]}) { nodes { metrics(names: ["val.loss", "train.loss"]) { name steps epochs } } } }',
    );
    expect(data.jobs.nodes[0].metrics).toEqual([
      { name: 'train.loss', steps: [6, 12], epochs: [1, 2] },
      { name: 'val.loss', steps: [6, 12], epochs: [1, 2] },
    ]);
  });

  test('names what its evaluation got wrong, with pictures', async () => {
    const image = 'item { index split path class thumbnailUrl } class predictedClass probability ownProbability loss missed boxes { kind }';
    const query = `query ($id: ID!) { job(id: $id) { evaluation { testTimeAugmentation findings {
      worstImages(first: 3) { ${image} } labelErrors { count images { ${image} } }
      confusedPairs { class predictedClass count examples { class } } bestThreshold { score } bySize { small { objects } }
    } } } }`;
    const { data, errors } = await ask(api, query, { id: jobId });
    expect(errors).toBeUndefined();
    const { testTimeAugmentation, findings } = data.job.evaluation;
    expect(testTimeAugmentation).toBe('NONE');
    expect(findings).toMatchObject({ bestThreshold: null, bySize: null });
    const { worstImages, labelErrors, confusedPairs } = findings;
    expect(worstImages).toHaveLength(3);
    for (const one of [...worstImages, ...labelErrors.images]) {
      expect(one).toMatchObject({ item: { split: 'VAL', class: one.class }, missed: null, boxes: null });
      expect(one.ownProbability).toBeLessThanOrEqual(one.class === one.predictedClass ? one.probability + 1e-9 : 1);
    }
    const losses = worstImages.map(({ loss }: { loss: number }) => loss);
    expect(losses).toEqual(losses.toSorted((a: number, b: number) => b - a));
    expect(Math.exp(-losses[0])).toBeCloseTo(worstImages[0].ownProbability, 6);
    const picture = await fetch(new URL(worstImages[0].item.thumbnailUrl, api.url));
    expect(picture.headers.get('content-type')).toBe('image/webp');
    for (const { class: is, predictedClass, examples } of confusedPairs) {
      expect(is).not.toBe(predictedClass);
      for (const example of examples) expect(example.class).toBe(is);
    }
    const { top1 } = (await version(1)).evaluations[0] as { top1: number };
    const wrong = confusedPairs.reduce((sum: number, { count }: { count: number }) => sum + count, 0);
    expect(wrong).toBe(Math.round((1 - top1) * 12));
    const many = await ask(api, query.replace('first: 3', 'first: 51'), { id: jobId });
    expect(many.errors?.[0]).toMatchObject({ message: 'first is 51: ask for 1 to 50.', extensions: { code: 'LIMIT' } });
  });

  test('gives its curves to TensorBoard', async () => {
    const { data } = await ask(api, 'query ($id: ID!) { job(id: $id) { tensorboardUrl metrics { name steps } } }', { id: jobId });
    const response = await fetch(new URL(data.job.tensorboardUrl, api.url));
    expect(response.headers.get('content-disposition')).toMatch(/filename="events\.out\.tfevents\.\d{10}\.[\w-]+"/);
    const bytes = Buffer.from(await response.arrayBuffer());
    for (const { name, steps } of data.job.metrics) expect(bytes.toString('latin1').split(name)).toHaveLength(steps.length + 1);
    expect((await fetch(new URL(data.job.tensorboardUrl.replace(/curves\/.*\?/, 'curves/other?'), api.url))).status).toBe(403);
  });

  test('a run that is continued has the hyperparameters of the run, unless others are said, and converts nothing when it is not asked to', async () => {
    const input = { modelName: 'digits', datasetVersionId: dataset, preset: 'resnet18', init: { continueFrom: (await version(1)).id } };
    const refused = 'mutation ($input: StartTrainingInput!) { startTraining(input: $input) { userErrors { code field message } } }';
    for (const hyperparameters of [{}, { epochs: 2 }]) {
      const { data } = await ask(api, refused, { input: { ...input, hyperparameters } });
      const message = 'The run to continue has done 2 epochs, and `epochs` counts from its first: say more than 2.';
      expect(data.startTraining.userErrors).toEqual([{ code: 'INVALID', field: ['hyperparameters'], message }]);
    }
    const start = { ...input, hyperparameters: { epochs: 3, learningRate: 0.0005 }, convert: false };
    const { job } = await mutate(api, 'startTraining', start, 'job { id spec }');
    const { learningRate, epochs, ...others } = (training.spec as { hyperparameters: Record<string, unknown> }).hyperparameters;
    expect([epochs, learningRate]).not.toEqual([3, 0.0005]);
    expect(job.spec.hyperparameters).toEqual({ ...others, epochs: 3, learningRate: 0.0005 });
    expect(job.spec.preprocess).toMatchObject({ width: 32, height: 32 });
    expect((await trained(api, job.id)).children).toEqual([]);

    // Both beside each other.
    const compare = `query ($ids: [ID!]!) { compareJobs(ids: $ids) {
      jobs { id metrics(names: ["val.loss"]) { epochs } } settings { name values } metrics { name last best bestEpochs }
    } }`;
    const { data, errors } = await ask(api, compare, { ids: [jobId, job.id] });
    expect(errors).toBeUndefined();
    const { jobs, settings, metrics } = data.compareJobs;
    expect(jobs).toEqual([
      { id: jobId, metrics: [{ epochs: [1, 2] }] },
      { id: job.id, metrics: [{ epochs: [3] }] },
    ]);
    expect(settings).toEqual([
      { name: 'init', values: [{ from: 'SCRATCH' }, { from: 'CHECKPOINT', modelVersionId: (await version(1)).id }] },
      { name: 'seed', values: [7, 0] },
      { name: 'epochs', values: [2, 3] },
      { name: 'learningRate', values: [0.001, 0.0005] },
    ]);
    expect(metrics.map(({ name }: { name: string }) => name)).toEqual([
      ...['train.loss', 'train.top1', 'val.loss', 'val.macroTop1', 'val.top1', 'val.top5'],
    ]);
    for (const { name, last, best, bestEpochs } of metrics) {
      expect(name.endsWith('loss') ? best[0] <= last[0] : best[0] >= last[0], name).toBe(true);
      expect([last[1], bestEpochs[1]]).toEqual([best[1], 3]);
    }
    for (const [ids, message] of [
      [[jobId], '2 to 8 trainings are compared; `ids` names 1.'],
      [[jobId, training.children[0].id], 'Trainings are compared; one of the jobs is CONVERT.'],
    ]) {
      const refusal = await ask(api, compare, { ids });
      expect(refusal.errors?.[0]).toMatchObject({ message, extensions: { code: 'INVALID' } });
    }
  }, 300_000);

  test('shows its first pictures before it starts, with the classes that a mixed one has', async () => {
    const preview = `query ($hyperparameters: JSON, $count: Int!, $seed: SafeInt!) { augmentationPreview(
      datasetVersionId: "${dataset}", preset: "resnet18", hyperparameters: $hyperparameters, count: $count, seed: $seed
    ) { dataUri classes { class share } boxes { class } } }`;
    const shown = async (variables: object) => ask(api, preview, { count: 3, seed: 5, ...variables });
    const { data, errors } = await shown({ hyperparameters: { imageSize: 48, cutMix: 1 } });
    expect(errors).toBeUndefined();
    expect(data.augmentationPreview).toHaveLength(3);
    for (const { dataUri, classes, boxes } of data.augmentationPreview) {
      const [, base64] = /^data:image\/jpeg;base64,(.+)$/.exec(dataUri) as unknown as [string, string];
      expect(await sharp(Buffer.from(base64, 'base64')).metadata()).toMatchObject({ width: 48, height: 48, format: 'jpeg' });
      expect(classes).toEqual([
        { class: expect.stringMatching(/^[012]$/), share: expect.any(Number) },
        { class: expect.stringMatching(/^[012]$/), share: expect.any(Number) },
      ]);
      expect(classes[0].share + classes[1].share).toBeCloseTo(1);
      expect(boxes).toEqual([]);
    }
    for (const [variables, message] of [
      [{ count: 17 }, 'count is 17: say 1 to 16.'],
      [{ seed: -1 }, 'seed is -1: say 0 to 4294967295.'],
      [{ hyperparameters: { mosaic: 1 } }, expect.stringContaining('mosaic')],
    ] as const) {
      expect((await shown(variables)).errors?.[0]).toMatchObject({ message, extensions: { code: 'INVALID' } });
    }
  }, 60_000);

  test('a checkpoint can be converted again, and an ONNX version cannot', async () => {
    const [checkpoint, onnx] = [await version(1), await version(2)];
    const { job } = await mutate(api, 'startConversion', { modelVersionId: checkpoint.id }, 'job { id }');
    await succeeded(api, job.id);
    const again = await version(4);
    expect(again).toMatchObject({ number: 4, format: 'ONNX', parent: { number: 1 }, weightsHash: checkpoint.weightsHash });
    const refused = 'mutation ($input: StartConversionInput!) { startConversion(input: $input) { job { id } userErrors { code field } } }';
    const { data } = await ask(api, refused, { input: { modelVersionId: onnx.id } });
    expect(data.startConversion).toEqual({ job: null, userErrors: [{ code: 'INVALID', field: ['modelVersionId'] }] });
  }, 300_000);

  test('is refused where it continues a run that had other classes', async () => {
    const [{ id }, datasetVersionId] = [await version(1), await digitsVersion(api, [3, 4, 5], 20)];
    const refused = 'mutation ($input: StartTrainingInput!) { startTraining(input: $input) { job { id } userErrors { field message } } }';
    const input = { modelName: 'digits', datasetVersionId, preset: 'resnet18', init: { continueFrom: id }, hyperparameters: { epochs: 3 } };
    const { data } = await ask(api, refused, { input });
    expect(data.startTraining).toMatchObject({
      job: null,
      userErrors: [{ field: ['init', 'continueFrom'], message: expect.stringContaining('had the classes 0, 1, 2') }],
    });
  });

  test('takes the weights of a classifier for the backbone of a detector, but not those of another one', async () => {
    const { id } = await version(1);
    const refused = 'mutation ($input: StartTrainingInput!) { startTraining(input: $input) { userErrors { field message } } }';
    const problemOf = async (preset: string) => {
      const input = { modelName: 'finder', datasetVersionId: dataset, preset, init: { weightsOf: id } };
      return (await ask(api, refused, { input })).data.startTraining.userErrors[0];
    };
    // The digits have no boxes: this is refused after the weights were accepted.
    expect(await problemOf('yolov8_resnet18')).toMatchObject({ field: ['datasetVersionId'] });
    expect(await problemOf('yolov8_resnet50')).toEqual({
      field: ['init', 'weightsOf'],
      message: 'A training of yolov8_resnet50 starts from weights of yolov8_resnet50 or resnet50; this version is CHECKPOINT of resnet18.',
    });
  });

  test.each([
    ['a hyperparameter that there is not', { hyperparameters: { epoch: 3 } }, ['hyperparameters']],
    ['a hyperparameter out of its range', { hyperparameters: { epochs: 0 } }, ['hyperparameters', 'epochs']],
    ['a preset that there is not', { preset: 'resnet51' }, ['preset']],
    ['a preset for another task than the dataset', { preset: 'yolov8n' }, ['datasetVersionId']],
    ['another preset’s hyperparameter', { preset: 'yolov8n', hyperparameters: { erasing: 0.5 } }, ['hyperparameters']],
    ['public weights that cannot be had', { init: { pretrained: true } }, ['init', 'pretrained']],
    ['public weights of a preset that has none', { preset: 'yolov8n', init: { pretrained: true } }, ['init', 'pretrained']],
    ['a momentum that never forgets', { hyperparameters: { optimizer: 'SGD', momentum: 1 } }, ['hyperparameters', 'momentum']],
    ['an image size that no box can fill', { preset: 'yolov8n', hyperparameters: { imageSize: 960 } }, ['hyperparameters', 'imageSize']],
    ['frozen layers of random weights', { hyperparameters: { freeze: 'BACKBONE' } }, ['hyperparameters']],
    ['an image size that the preset has not', { preset: 'vit_b_16', hyperparameters: { imageSize: 32 } }, ['hyperparameters', 'imageSize']],
    [
      'images of other sizes where the preset has one',
      { preset: 'vit_b_16', hyperparameters: { multiScale: 0.2 } },
      ['hyperparameters', 'multiScale'],
    ],
    ['public weights of a backbone that cannot be had', { preset: 'yolov8_resnet18', init: { pretrained: true } }, ['init', 'pretrained']],
    ['a compiled model for changing image sizes', { hyperparameters: { compile: true, multiScale: 0.2 } }, ['hyperparameters']],
    ['a compiled model of several processes', { processes: 2, hyperparameters: { compile: true } }, ['processes']],
    ['more processes than the server has slots', { processes: 3 }, ['processes']],
    ['a seed that is negative', { seed: -1 }, ['seed']],
    ['a name that is none', { modelName: '../digits' }, ['modelName']],
  ])('is refused with %s, before a job is made', async (_what, change, field) => {
    const refused =
      'mutation ($input: StartTrainingInput!) { startTraining(input: $input) { job { id } userErrors { code field message } } }';
    const input = { modelName: 'digits', datasetVersionId: dataset, preset: 'resnet18', ...change };
    const { data, errors } = await ask(api, refused, { input });
    expect(errors).toBeUndefined();
    expect(data.startTraining).toMatchObject({ job: null, userErrors: [{ code: 'INVALID', field }] });
  });

  test('a batch size that is left open is chosen when the job is queued, and a retry has the same', async () => {
    const hyperparameters = { imageSize: 32, batchSize: 'AUTO' };
    const start = { modelName: 'digits', datasetVersionId: dataset, preset: 'resnet18', hyperparameters, device: 'CPU', workers: 1 };
    const { job } = await mutate(api, 'startTraining', start, 'job { id spec }');
    // As few as there may be: the dataset has 48 images to train.
    expect(job.spec).toMatchObject({ hyperparameters: { batchSize: 4 }, workers: 1 });
    await mutate(api, 'cancelJob', { jobId: job.id }, 'job { id }');
    await jobWhen(api, job.id, ({ state }) => state === 'CANCELLED');
    const retried = (await mutate(api, 'retryJob', { jobId: job.id }, 'job { id spec }')).job;
    expect(retried.spec.hyperparameters).toEqual(job.spec.hyperparameters);
    await mutate(api, 'cancelJob', { jobId: retried.id }, 'job { id }');
    await jobWhen(api, retried.id, ({ state }) => state === 'CANCELLED');
  });
});

describe('the conversion gate', () => {
  const good = {
    problems: [],
    inputs: 'VALIDATION' as const,
    images: 1000,
    tolerance: 1e-3,
    largestLogit: 10,
    largestDifference: 1e-5,
    beyondTolerance: 0,
    top1Differ: 1,
    top1DifferBeyondMargin: 0,
    batches: [],
  };

  test('passes within the tolerance, with one image in a thousand on the edge between two classes', () => {
    expect(requireGate({ numbers: good })).toBe(good);
  });

  test.each([
    ['the checker found something', { problems: ['Field shape is missing.'] }, /Field shape is missing/],
    ['an image is beyond the tolerance', { beyondTolerance: 2, largestDifference: 0.01 }, /2 of 1000 images.*logits.*0\.0100.*0\.00100/],
    ['a sure image gets another class', { top1DifferBeyondMargin: 1 }, /1 of 1000 images get another class though/],
    ['too many images are on the edge', { top1Differ: 2 }, /2 of 1000 images get another class; at most 1 may/],
  ])('fails, saying by how much, when %s', (_what, change, message) => {
    expect(() => requireGate({ numbers: { ...good, ...change } })).toThrow(
      expect.objectContaining({ code: 'GATE_FAILED', message: expect.stringMatching(message) }),
    );
  });

  describe('of a detector', () => {
    const found = {
      ...{ problems: [], inputs: 'VALIDATION' as const, images: 80, batches: [] },
      ...{ tolerance: 1e-4, boxTolerance: 0.01, largestDifference: 1e-6, largestBoxDifference: 1e-4, beyondTolerance: 0 },
      ...{ listScore: 0.05, detections: 1000, detectionsDiffer: 1, detectionsDifferBeyondMargin: 0 },
    };

    test('passes within both tolerances, with one box in a thousand on the edge of a threshold', () => {
      expect(requireGate({ numbers: found })).toBe(found);
      expect(comparisonsOf(found).map(({ output, tolerance }) => [output, tolerance])).toEqual([
        ['boxes', 0.01],
        ['scores', 1e-4],
      ]);
    });

    test.each([
      ['an image is beyond the tolerance', { beyondTolerance: 80 }, /80 of 80 images differ/],
      [
        'boxes move at another batch size only',
        { largestBoxDifference: 0.05 },
        /Output boxes differs by up to 0\.0500; 0\.0100 is allowed/,
      ],
      ['a sure box is missing', { detectionsDifferBeyondMargin: 1 }, /1 of 1000 boxes are found by one of the two only though/],
      ['too many boxes are on the edge', { detectionsDiffer: 3 }, /3 of 1000 boxes are found by one of the two only; at most 2 may/],
    ])('fails, saying by how much, when %s', (_what, change, message) => {
      expect(() => requireGate({ numbers: { ...found, ...change } })).toThrow(
        expect.objectContaining({ code: 'GATE_FAILED', message: expect.stringMatching(message) }),
      );
    });
  });

  test('passes with one case on a threshold in a set of few images or boxes, and not with two', () => {
    const classifier = { ...good, images: 60 };
    const detector = {
      ...{ problems: [], inputs: 'VALIDATION' as const, images: 6, batches: [], beyondTolerance: 0, detectionsDifferBeyondMargin: 0 },
      ...{ tolerance: 1e-4, boxTolerance: 0.01, largestDifference: 1e-6, largestBoxDifference: 1e-4, listScore: 0.05, detections: 20 },
    };
    expect(() => requireGate({ numbers: { ...classifier, top1Differ: 1 } })).not.toThrow();
    expect(() => requireGate({ numbers: { ...classifier, top1Differ: 2 } })).toThrow(/at most 1 may/);
    expect(() => requireGate({ numbers: { ...detector, detectionsDiffer: 2 } })).not.toThrow();
    expect(() => requireGate({ numbers: { ...detector, detectionsDiffer: 3 } })).toThrow(/at most 2 may/);
  });

  test('fails when nothing was measured', () => {
    expect(() => requireGate(undefined)).toThrow(expect.objectContaining({ code: 'GATE_FAILED' }));
  });
});
