import { expect, test } from 'vitest';
import { yolo } from './support/detection.ts';
import { withServer } from './support/server.ts';
import { type Api, ask, datasetVersionOf, mutate, succeeded, trained } from './support/training.ts';

const versionFields = `id number format parent { number } labels gate
  evaluations { split images top1 map50 map5095 scoreThreshold nmsIou boxesMax job { kind } }`;

test('a detector is trained, converted behind its gate, registered and evaluated as a classifier is', async () => {
  await withServer(async (server) => {
    const api: Api = { url: server.url, token: await server.as('ENGINEER') };
    const datasetVersionId = await datasetVersionOf(api, 'boxes', yolo(), 'DETECTION');

    const hyperparameters = { imageSize: 32, epochs: 1, batchSize: 2 };
    const start = { modelName: 'finder', datasetVersionId, preset: 'yolov8n', hyperparameters };
    const { job } = await mutate(api, 'startTraining', start, 'job { id }');
    await trained(api, job.id);
    const versions = async () => {
      const { data } = await ask(api, `{ model(name: "finder") { task versions(first: 10) { nodes { ${versionFields} } } } }`);
      expect(data.model.task).toBe('DETECTION');
      return data.model.versions.nodes.toSorted((a: { number: number }, b: { number: number }) => a.number - b.number);
    };
    const [checkpoint, onnx] = await versions();
    expect(checkpoint).toMatchObject({ format: 'CHECKPOINT', labels: ['ring', 'stroke'] });
    const definition = { scoreThreshold: 0.001, nmsIou: 0.7, boxesMax: 100 };
    expect(checkpoint.evaluations).toMatchObject([{ split: 'VAL', images: 2, top1: null, ...definition, job: { kind: 'TRAIN' } }]);
    expect(onnx).toMatchObject({ format: 'ONNX', parent: { number: 1 }, labels: ['ring', 'stroke'] });
    expect(onnx.gate).toMatchObject({ problems: [], images: 2, beyondTolerance: 0, boxTolerance: 0.01, detectionsDifferBeyondMargin: 0 });

    const evaluate = { modelVersionId: onnx.id, datasetVersionId, split: 'VAL' };
    const { job: evaluation } = await mutate(api, 'startEvaluation', evaluate, 'job { id }');
    await succeeded(api, evaluation.id);
    const [, measured] = await versions();
    const { map50, map5095 } = checkpoint.evaluations[0];
    expect(measured.evaluations).toMatchObject(['EVALUATE', 'CONVERT'].map((kind) => ({ map50, map5095, job: { kind } })));
  });
}, 600_000);
