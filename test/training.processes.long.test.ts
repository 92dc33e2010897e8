import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { processesIn } from './support/jobs.ts';
import { withServer } from './support/server.ts';
import { type Api, ask, digitsVersion, jobWhen, mutate, succeeded } from './support/training.ts';

const commandOf = (pid: number): string => {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return '';
  }
};

test('a training of two processes holds both slots, crashes with one of them, and resumes', async () => {
  await withServer(async (server) => {
    const api: Api = { url: server.url, token: await server.as('ENGINEER') };
    const datasetVersionId = await digitsVersion(api, [0, 1, 2], 40);
    const hyperparameters = { imageSize: 32, epochs: 12, batchSize: 8, flip: 0 };
    const input = {
      modelName: 'digits',
      datasetVersionId,
      preset: 'resnet18',
      hyperparameters,
      cpuThreads: 1,
      processes: 2,
      device: 'CPU',
    };
    const { job } = await mutate(api, 'startTraining', input, 'job { id }');
    await jobWhen(api, job.id, ({ events }) => events.some((e: { phase?: string }) => e.phase === 'validation'));
    const { data } = await ask(api, '{ system { slots { job { id } } } }');
    expect(data.system.slots.map((slot: { job: { id: string } }) => slot.job.id)).toEqual([job.id, job.id]);
    const ranks = processesIn(server.dataDir).filter((pid) => commandOf(pid).includes('whetstone_trainer.processes'));
    expect(ranks).toHaveLength(1);
    process.kill(ranks[0] as number, 'SIGKILL');
    const crashed = await jobWhen(api, job.id, ({ state, waitReason }) => state === 'QUEUED' && waitReason);
    expect(crashed.waitReason.message).toMatch(/^Process 2 of the 2 that train together was killed by SIGKILL\./);
    expect(crashed.attempts).toMatchObject([{ state: 'CRASHED', charged: true }]);
    const ended = await succeeded(api, job.id);
    expect(ended.spec).toMatchObject({ processes: 2 });
    expect(ended.attempts.at(-1).state).toBe('SUCCEEDED');
    expect(processesIn(server.dataDir).filter((pid) => commandOf(pid).includes('whetstone_trainer.processes'))).toEqual([]);
  });
});
