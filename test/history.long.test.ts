import { join } from 'node:path';
import { expect, test } from 'vitest';
import { deployed } from './support/deployments.ts';
import { makeInferenceModels } from './support/inference.ts';
import { withFolder, withServer } from './support/server.ts';
import { ask, modelVersionOf, mutate, succeeded } from './support/training.ts';

test(
  'a real benchmark of a version that computes for longer than the deployed one says so to whoever follows it',
  () =>
    withFolder((folder) =>
      withServer(async (server) => {
        const api = { url: server.url, token: await server.as('ENGINEER') };
        await makeInferenceModels(folder, ['chain-2', 'chain-8']);
        const versions: string[] = [];
        for (const name of ['chain-2', 'chain-8']) versions.push(await modelVersionOf(api, 'digits', join(folder, `${name}.onnx`)));
        await deployed(api, 'shop', versions[0] as string, { deadlineMs: 60_000 });
        const briefly = {
          engines: ['ONNXRUNTIME_CPU'],
          batchSizes: [1],
          intraOpThreads: [1],
          secondsMin: 3,
          secondsMax: 3,
          warmupSecondsMax: 0.2,
        };
        const input = { modelVersionIds: versions, ...briefly };
        const { job } = await mutate(api, 'startBenchmark', input, 'job { id }');
        await succeeded(api, job.id);
        const { data } = await ask(
          api,
          `query ($id: ID!) {
            job(id: $id) { regressions { says against { number } } events(first: 1000) { __typename ... on JobWarningEvent { code message } } }
            deployment(name: "shop") { benchmarkHistory { nodes { modelVersion { number } } } }
          }`,
          { id: job.id },
        );
        const [found] = data.job.regressions;
        expect(found).toMatchObject({
          says: expect.stringContaining('is slower than version 1, which serves shop'),
          against: { number: 1 },
        });
        const events = data.job.events.map((e: { __typename: string; message?: string }) => [e.__typename, e.message]);
        expect(events.slice(-2)).toEqual([
          ['JobWarningEvent', found.says],
          ['JobStateEvent', undefined],
        ]);
        expect(data.deployment.benchmarkHistory.nodes).toEqual([{ modelVersion: { number: 1 } }]);
      }),
    ),
  180_000,
);
