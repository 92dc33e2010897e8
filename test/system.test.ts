import { writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test, vi } from 'vitest';
import { eventually } from './support/eventually.ts';
import { withFolder, withServer } from './support/server.ts';
import { ask, withConnection } from './support/socket.ts';

afterEach(() => void vi.restoreAllMocks());

const fields = `version slots { n job { id } } queuedJobs runningJobs
  cpu { cores utilizationPercent loadAverage1m } memory { totalBytes freeBytes serverRssBytes }
  disk { totalBytes freeBytes }
  gpus { index uuid name memoryTotalBytes memoryUsedBytes utilizationPercent temperatureCelsius powerWatts } gpusReason`;

test('the machine: slots, processor, memory, disk, and the GPUs that nvidia-smi lists', () =>
  withFolder(async (folder) => {
    writeFileSync(join(folder, 'nvidia-smi'), "#!/bin/sh\necho '0, GPU-aaa, A card, 8192, [N/A], 5, 40, 9.5'\n", { mode: 0o755 });
    await withServer(
      async ({ graphql, as }) => {
        const { system } = (await graphql(`{ system { ${fields} } }`, {}, await as('VIEWER'))).data;
        const bytes = expect.any(Number);
        expect(system).toEqual({
          version: expect.stringMatching(/^\d+\.\d+\.\d+/),
          slots: [0, 1, 2].map((n) => ({ n, job: null })),
          queuedJobs: 0,
          runningJobs: 0,
          cpu: { cores: cpus().length, utilizationPercent: expect.any(Number), loadAverage1m: expect.any(Number) },
          memory: { totalBytes: totalmem(), freeBytes: bytes, serverRssBytes: bytes },
          disk: { totalBytes: bytes, freeBytes: bytes },
          gpus: [
            {
              index: 0,
              uuid: 'GPU-aaa',
              name: 'A card',
              memoryTotalBytes: 2 ** 33,
              memoryUsedBytes: null,
              utilizationPercent: 5,
              temperatureCelsius: 40,
              powerWatts: 9.5,
            },
          ],
          gpusReason: null,
        });
        expect(system.cpu.utilizationPercent).toBeGreaterThanOrEqual(0);
        expect(system.cpu.utilizationPercent).toBeLessThanOrEqual(100);
        expect(system.memory.freeBytes).toBeLessThan(system.memory.totalBytes);
        expect(system.disk.freeBytes).toBeLessThan(system.disk.totalBytes);
      },
      { PATH: folder, WHETSTONE_SLOTS: '3' },
    );
  }));

test('without a GPU there is none, and the reason', () =>
  withServer(
    async ({ graphql, as }) => {
      const { data } = await graphql('{ system { gpus { uuid } gpusReason jobsHaveNoGpu gpusAskedAgainAt } }', {}, await as('VIEWER'));
      const reason = 'nvidia-smi is not installed on this machine.';
      expect(data.system).toEqual({ gpus: null, gpusReason: reason, jobsHaveNoGpu: reason, gpusAskedAgainAt: null });
    },
    { PATH: '/nowhere' },
  ));

test('a GPU that is there since the start is shown with how it is for jobs: they get it as soon as `system` shows it', () =>
  withFolder(async (folder) => {
    const smi = join(folder, 'nvidia-smi');
    writeFileSync(smi, '#!/bin/sh\necho "no driver" >&2; exit 9\n', { mode: 0o755 });
    await withServer(
      async ({ graphql, as }) => {
        const token = await as('VIEWER');
        const read = async () =>
          (await graphql('{ system { gpus { uuid } gpusReason jobsHaveNoGpu gpusAskedAgainAt } }', {}, token)).data.system;
        const reason = 'nvidia-smi failed: no driver';
        expect(await read()).toEqual({ gpus: null, gpusReason: reason, jobsHaveNoGpu: reason, gpusAskedAgainAt: expect.any(String) });
        writeFileSync(smi, `#!/bin/sh\necho '0, GPU-aaa, A card, 8192, [N/A], 5, 40, 9.5'\n`);
        const shown = await eventually(async () => {
          const system = await read();
          expect(system.gpus).not.toBeNull();
          return system;
        });
        expect(shown).toEqual({ gpus: [{ uuid: 'GPU-aaa' }], gpusReason: null, jobsHaveNoGpu: null, gpusAskedAgainAt: null });
      },
      { PATH: `${folder}:/usr/bin:/bin` },
    );
  }));

test('the subscription reads at once, then after each interval, which has its limits', () =>
  withServer(
    async ({ url, as }) =>
      withConnection(url, await as('VIEWER'), async (socket) => {
        const query = `subscription ($ms: Int) { system(intervalMs: $ms) { ${fields} } }`;
        expect((await ask(socket, 'a', query, { ms: 250 })).payload.data.system.cpu.cores).toBe(cpus().length);
        await socket.message((m) => socket.messages.filter((one) => one.id === 'a').length >= 3 && m.id === 'a');
        for (const ms of [249, 60_001]) {
          const { payload } = await ask(socket, `${ms}`, query, { ms });
          expect((payload.errors ?? payload)[0]).toMatchObject({
            message: `\`intervalMs\` is between 250 and 60000; it is ${ms}.`,
            extensions: { code: 'LIMIT' },
          });
        }
      }),
    { PATH: '/nowhere' },
  ));

test('many subscriptions at once cost one reading of the machine, and its next ones are later', () =>
  withServer(
    async ({ url, as, services }) =>
      withConnection(url, await as('VIEWER'), async (socket) => {
        let ms = performance.now();
        vi.spyOn(performance, 'now').mockImplementation(() => ms);
        const queries = vi.spyOn(services.db.$client, 'prepare');
        const readings = () => queries.mock.calls.filter(([text]) => text.includes(' from "slot" order by ')).length;
        const ids = Array.from({ length: 20 }, (_, n) => `${n}`);
        /** Each of the streams gets so many further values. */
        const receive = async (values: number) => {
          socket.messages.length = 0;
          await eventually(() => {
            for (const id of ids) expect(socket.messages.filter((m) => m.id === id).length).toBeGreaterThanOrEqual(values);
          });
        };
        const query = 'subscription { system(intervalMs: 250) { queuedJobs } }';
        for (const id of ids) socket.send({ type: 'subscribe', id, payload: { query } });
        await receive(3);
        expect(readings()).toBe(1);
        ms += 250;
        await receive(2);
        expect(readings()).toBe(2);
      }),
    { PATH: '/nowhere' },
  ));
