/** Which engine runs the model of a deployment: what `deploy` asks for, or what a benchmark chose. */
import { join } from 'node:path';
import { sql } from 'drizzle-orm';
import { describe, expect, test, vi } from 'vitest';
import { deploymentRevision } from '../src/deployments/tables.ts';
import { report } from '../src/reports/tables.ts';
import { by, deployed, health, settled } from './support/deployments.ts';
import { nativeMissing, openvinoMissing, whyNoOpenvino, withModels } from './support/engines.ts';
import { inferJson, makeInferenceModels } from './support/inference.ts';
import { type TestServer, withFolder, withServer } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';
import { withRows } from './support/storage.ts';
import { type Api, ask, modelVersionOf, mutate, succeeded } from './support/training.ts';

const engineOf = async (api: Api, name: string) =>
  (await ask(api, `{ deployment(name: "${name}") { active { settings { engine } } } }`)).data.deployment.active.settings.engine;
const deploying = 'mutation ($i: DeployInput!) { deploy(input: $i) { userErrors { code field message } } }';
const body = { inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4], data: [1, 2, 3, 4] }] };
const answer = async (api: Api, name: string) => (await inferJson((await health(api)).url, name, body, by(api))).json.outputs[0].data;

test('is that of the host where nobody says, also for a revision from before there was a choice; one that is not there is refused', () =>
  withFolder(async (folder) =>
    withServer(async (server) => {
      const api = { url: server.url, token: await server.as('ENGINEER') };
      await makeInferenceModels(folder, ['plus-1']);
      const modelVersionId = await modelVersionOf(api, 'plus', join(folder, 'plus-1.onnx'));
      await mutate(api, 'deploy', { name: 'usual', modelVersionId }, 'deployment { name }');
      await settled(api, 'usual');
      expect([await engineOf(api, 'usual'), await answer(api, 'usual')]).toEqual(['AUTO', [2, 3, 4, 5]]);

      const settingsJson = sql`json_remove(${deploymentRevision.settingsJson}, '$.engine')`;
      await withRows(server.dataDir, (db) => db.update(deploymentRevision).set({ settingsJson }).run());
      expect(await engineOf(api, 'usual')).toBe('AUTO');

      vi.stubEnv('WHETSTONE_OPENVINO_LIBRARY', '/nowhere');
      // No driver is found in it. The server is in this process.
      vi.stubEnv('PATH', '/nowhere');
      for (const engine of ['OPENVINO', 'ONNXRUNTIME_NATIVE_CUDA', 'ONNXRUNTIME_NATIVE_TENSORRT']) {
        const message = expect.stringContaining(`The engine ${engine} is not on this machine.`);
        const refused = await ask(api, deploying, { i: { name: 'other', modelVersionId, settings: { engine } } });
        expect(refused.data.deploy.userErrors).toEqual([{ code: 'INVALID', field: ['settings'], message }]);
        const asked = sql`json_set(${deploymentRevision.settingsJson}, '$.engine', ${engine})`;
        await withRows(server.dataDir, (db) => db.update(deploymentRevision).set({ settingsJson: asked }).run());
        const back = await ask(api, 'mutation { rollback(input: { name: "usual", revision: 1 }) { userErrors { code field message } } }');
        expect(back.data.rollback.userErrors).toEqual([{ code: 'INVALID', field: ['revision'], message }]);
      }
      vi.unstubAllEnvs();
    }),
  ));

describe.skipIf(openvinoMissing !== null || nativeMissing !== null)(`OpenVINO${whyNoOpenvino}`, () => {
  const fileOf = withModels(['plus-1', 'unchecked-GatherND']);
  let server: TestServer;
  withSharedServer((running) => {
    server = running;
  });

  test('does not get a model by which a request could read the memory of the host', async () => {
    const api = { url: server.url, token: await server.as('ENGINEER') };
    const modelVersionId = await modelVersionOf(api, 'unsafe', fileOf('unchecked-GatherND'));
    const reason = expect.stringContaining('OpenVINO does not check its indices in a GatherND: unsafe. Run the model with ONNX Runtime.');
    const revisions = [{ state: 'FAILED', reason }];
    expect(await deployed(api, 'picks', modelVersionId, { engine: 'OPENVINO' })).toMatchObject({ active: null, revisions });
    expect(await deployed(api, 'picks', modelVersionId)).toMatchObject({ active: { number: 2 } });
    expect(await health(api)).toMatchObject({ restarts: 0 });
  });

  test('runs the model that asks for it, and that for which a benchmark chose it', async () => {
    const api = { url: server.url, token: await server.as('ENGINEER') };
    const modelVersionId = await modelVersionOf(api, 'plus', fileOf('plus-1'));
    await mutate(api, 'deploy', { name: 'asked', modelVersionId, settings: { engine: 'OPENVINO' } }, 'deployment { name }');
    await settled(api, 'asked');
    expect([await engineOf(api, 'asked'), await answer(api, 'asked')]).toEqual(['OPENVINO', [2, 3, 4, 5]]);

    const engines = ['ONNXRUNTIME_CPU', 'OPENVINO'];
    const brief = { warmupSecondsMax: 0.2, secondsMin: 0.3, secondsMax: 0.3, batchSizes: [1], intraOpThreads: [1] };
    const { job } = await mutate(api, 'startBenchmark', { modelVersionIds: [modelVersionId], engines, ...brief }, 'job { id }');
    await succeeded(api, job.id);
    const query = 'query ($id: ID!) { job(id: $id) { report { technical { rows { n engine engineVersion verdict gate { inputs } } } } } }';
    const { rows } = (await ask(api, query, { id: job.id })).data.job.report.technical;
    expect(rows.map(({ engine, engineVersion }: Record<string, string>) => [engine, engineVersion])).toEqual([
      ['ONNXRUNTIME_CPU', expect.stringMatching(/^onnxruntime \d/)],
      ['OPENVINO', expect.stringMatching(/^openvino 20\d\d/)],
    ]);
    // As if each in turn had been the fastest.
    for (const [n, engine] of [
      [0, 'AUTO'],
      [1, 'OPENVINO'],
    ] as const) {
      const content = sql`json_set(${report.content}, '$.choice.n', ${n})`;
      await withRows(server.dataDir, (db) => db.update(report).set({ content }).run());
      await mutate(api, 'deploy', { name: 'chosen', modelVersionId, benchmarkJobId: job.id }, 'deployment { name }');
      await settled(api, 'chosen');
      expect([await engineOf(api, 'chosen'), await answer(api, 'chosen')]).toEqual([engine, [2, 3, 4, 5]]);
    }
  });
});
