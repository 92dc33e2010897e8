import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { deployed } from './support/deployments.ts';
import { eventually } from './support/eventually.ts';
import { makeInferenceModels } from './support/inference.ts';
import { withServerProcess } from './support/process.ts';
import { client, withFolder } from './support/server.ts';
import { ask, jobWhen, modelVersionOf, mutate, succeeded } from './support/training.ts';

const models = mkdtempSync(join(tmpdir(), 'whetstone-models-'));
beforeAll(() => makeInferenceModels(models, ['identity']));
afterAll(() => rmSync(models, { recursive: true }));

test(
  'a load test under a server that is killed keeps the rates that have ended, and ends with the next server',
  () =>
    withFolder(async (dataDir) => {
      const env = { WHETSTONE_DATA_DIR: dataDir };
      const credentials = { token: '' };
      const id = await withServerProcess(env, async (running) => {
        const server = client(running as never, dataDir);
        const api = { url: running.url, token: await server.as('ENGINEER') };
        credentials.token = api.token;
        await deployed(api, 'echo', await modelVersionOf(api, 'identity', join(models, 'identity.onnx')));
        const input = { deployment: 'echo', rates: [20, 21, 22], secondsPerRate: 3 };
        const job = (await mutate(api, 'startLoadTest', input, 'job { id }')).job.id;
        await jobWhen(api, job, ({ events }) =>
          events.some(({ __typename: type }: { __typename: string }) => type === 'JobCheckpointEvent'),
        );
        running.kill('SIGKILL');
        await running.exit;
        return job;
      });
      await withServerProcess(env, async ({ url }) => {
        const api = { url, token: credentials.token };
        const { attempts, events } = await succeeded(api, id);
        expect(attempts[0]).toMatchObject({ state: 'LOST' });
        const last = events.filter(({ attempt }: { attempt: number }) => attempt === attempts.length);
        expect(last.map(({ phase }: { phase?: string }) => phase)).not.toContain('warmup');
        await eventually(async () => {
          const { data } = await ask(api, 'query ($id: ID!) { job(id: $id) { loadTest { rates { rate } } } }', { id });
          expect(data.job.loadTest.rates).toEqual([{ rate: 20 }, { rate: 21 }, { rate: 22 }]);
        });
      });
    }),
  180_000,
);
