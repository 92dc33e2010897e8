import { expect, test } from 'vitest';
import { processesIn } from './support/jobs.ts';
import { withServer } from './support/server.ts';
import { type Api, ask, digitsVersion, jobWhen, mutate } from './support/training.ts';

test('a training is cancelled while its model is compiled: it ends in seconds, and no compiler is left', async () => {
  await withServer(async (server) => {
    const api: Api = { url: server.url, token: await server.as('ENGINEER') };
    const datasetVersionId = await digitsVersion(api, [0, 1, 2], 40);
    const before = processesIn(server.dataDir).length;
    const hyperparameters = { imageSize: 32, epochs: 2, batchSize: 8, flip: 0, compile: true };
    const input = { modelName: 'digits', datasetVersionId, preset: 'resnet18', hyperparameters, device: 'CPU' };
    const { job } = await mutate(api, 'startTraining', input, 'job { id spec }');
    expect(job.spec).toMatchObject({ hyperparameters: { compile: true } });
    await jobWhen(api, job.id, ({ events }) => events.some((e: { phase?: string }) => e.phase === 'compilation'));
    const { data } = await ask(api, 'query ($id: ID!) { job(id: $id) { attempts { environment } } }', { id: job.id });
    expect(data.job.attempts[0].environment.compiler).toMatch(/\d+\.\d+/);
    const asked = Date.now();
    await mutate(api, 'cancelJob', { jobId: job.id }, 'job { id }');
    await jobWhen(api, job.id, ({ state }) => state === 'CANCELLED');
    // Sooner than the ladder of SIGTERM and SIGKILL.
    expect(Date.now() - asked).toBeLessThan(20_000);
    await expect.poll(() => processesIn(server.dataDir).length, { timeout: 10_000 }).toBe(before);
  });
}, 300_000);

test('a server without a compiler refuses it before there is a job', async () => {
  await withServer(
    async (server) => {
      const api: Api = { url: server.url, token: await server.as('ENGINEER') };
      const datasetVersionId = await digitsVersion(api, [0, 1, 2], 20);
      const input = { modelName: 'digits', datasetVersionId, preset: 'resnet18', hyperparameters: { compile: true } };
      const start = 'mutation ($input: StartTrainingInput!) { startTraining(input: $input) { job { id } userErrors { field message } } }';
      const { data } = await ask(api, start, { input });
      const message = expect.stringContaining('compiler is missing on the server (no-such-compiler)');
      expect(data.startTraining).toEqual({ job: null, userErrors: [{ field: ['hyperparameters'], message }] });
    },
    { CXX: 'no-such-compiler' },
  );
}, 300_000);
