import { join } from 'node:path';
import { expect, test } from 'vitest';
import { deployed, echoesDuringSwap } from './support/deployments.ts';
import { makeInferenceModels } from './support/inference.ts';
import { withFolder, withServer } from './support/server.ts';
import { modelVersionOf } from './support/training.ts';

test('100,000 distinct requests over 100 connections with a hot swap in the middle: no answer is lost or another’s', () =>
  withFolder(async (folder) =>
    withServer(async (server) => {
      const api = { url: server.url, token: await server.as('ENGINEER') };
      await makeInferenceModels(folder, ['identity']);
      const identity = await modelVersionOf(api, 'identity', join(folder, 'identity.onnx'));
      await deployed(api, 'echo', identity, { deadlineMs: 60_000 });
      const { answered, wrong } = await echoesDuringSwap(api, { requests: 100_000, connections: 100 }, () =>
        deployed(api, 'echo', identity, { deadlineMs: 60_000, batchMax: 4 }),
      );
      expect(wrong).toEqual([]);
      expect([...answered.values()].reduce((sum, count) => sum + count, 0)).toBeGreaterThanOrEqual(100_000);
    }),
  ));
