/** INT8 with a fine-tuning before it, through the server. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Killed, type Moment, startKilled } from './support/killed.ts';
import { ask, digitsVersion, mutate, succeeded, trained } from './support/training.ts';

let killed: Killed;
let onnx: string;
beforeAll(async () => {
  killed = await startKilled();
  const datasetVersionId = await digitsVersion(killed.api(), [0, 1, 2], 50);
  const hyperparameters = { imageSize: 32, epochs: 2, batchSize: 8, flip: 0, warmupSteps: 4 };
  const input = { modelName: 'digits', datasetVersionId, preset: 'resnet18', hyperparameters };
  const { job } = await mutate(killed.api(), 'startTraining', input, 'job { id }');
  onnx = (await trained(killed.api(), job.id)).children[0].result.modelVersionId;
}, 600_000);
afterAll(() => killed.stop());

async function begin(): Promise<string> {
  const input = { modelVersionId: onnx, precision: 'INT8', budget: 10, recover: { epochs: 2, learningRate: 0.0003 } };
  return (await mutate(killed.api(), 'startCompression', input, 'job { id }')).job.id;
}

const fields = `number precision sha256 lineageHash parent { id } evaluations { split images top1 }
  compression { parentMetric metric steps { operators recovered metric sizeBytes } recovery { epochs learningRate bestEpoch kept } }`;

/** What a compression has made, and from where each of its attempts continued. */
async function madeBy(id: string) {
  const { result, attempts } = await succeeded(killed.api(), id);
  const query = `query ($id: ID!) { node(id: $id) { ... on ModelVersion { ${fields} } } }`;
  const { data, errors } = await ask(killed.api(), query, { id: result.modelVersionId });
  expect(errors).toBeUndefined();
  return { version: data.node, resumed: attempts.map((one: { resumed: unknown }) => one.resumed) };
}

const after = (type: string): Moment => ({ when: `after ${type}`, isNow: (told) => told.some((one) => one.type === type) });

test('a compression with `recover` that is killed with its server, and then alone, ends with the bytes of an undisturbed one', async () => {
  const { version: undisturbed } = await madeBy(await begin());
  expect(undisturbed).toMatchObject({ precision: 'INT8', parent: { id: onnx }, evaluations: [{ split: 'VAL', images: 30 }] });
  const { steps, recovery, metric } = undisturbed.compression;
  expect(steps.slice(0, 2)).toMatchObject([
    { operators: 0, recovered: false },
    { operators: 0, recovered: true },
  ]);
  expect(recovery).toEqual({ epochs: 2, learningRate: 0.0003, bestEpoch: expect.any(Number), kept: expect.any(Boolean) });
  expect(metric).toBe(Math.max(steps[0].metric, steps[1].metric));
  expect(metric).toBe(undisturbed.evaluations[0].top1);

  const id = await killed.outlives(begin, [
    ['server', after('JobEpochEvent')],
    ['child', after('JobCheckpointEvent')],
  ]);
  const { version, resumed } = await madeBy(id);
  expect(resumed.at(-1)).toEqual({ epoch: 2, batch: 0 });
  expect({ ...version, number: undisturbed.number }).toEqual(undisturbed);
});
