import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { identify } from '../src/jobs/executor/local.ts';
import { createLog } from '../src/log.ts';
import { type Gpus, readGpus, watchGpus } from '../src/system/gpus.ts';
import { until } from './support/jobs.ts';
import { withFolder } from './support/server.ts';

/** What is read with this script as nvidia-smi. */
const withSmi = <T>(script: string, use: (folder: string) => Promise<T>): Promise<T> =>
  withFolder((folder) => {
    writeFileSync(join(folder, 'nvidia-smi'), `#!/bin/sh\ncd '${folder}'\n${script}\n`, { mode: 0o755 });
    return use(folder);
  });

const reading = (script: string): Promise<Gpus> => withSmi(script, (folder) => readGpus(`${folder}:/usr/bin:/bin`));

const a100 = '0, GPU-6f7e, NVIDIA A100-SXM4-80GB, 81920, 1024, 37, 41, 93.52';
const mib = 1024 ** 2;

test('two GPUs, of which one does not report some values', async () => {
  expect(await reading(`echo '${a100}'; echo '1, GPU-11aa, NVIDIA GeForce GT 710, 2048, [N/A], [N/A], 35, [Not Supported]'`)).toEqual({
    gpus: [
      {
        index: 0,
        uuid: 'GPU-6f7e',
        name: 'NVIDIA A100-SXM4-80GB',
        memoryTotalBytes: 81920 * mib,
        memoryUsedBytes: 1024 * mib,
        utilizationPercent: 37,
        temperatureCelsius: 41,
        powerWatts: 93.52,
        throttleReasons: null,
      },
      {
        index: 1,
        uuid: 'GPU-11aa',
        name: 'NVIDIA GeForce GT 710',
        memoryTotalBytes: 2048 * mib,
        memoryUsedBytes: null,
        utilizationPercent: null,
        temperatureCelsius: 35,
        powerWatts: null,
        throttleReasons: null,
      },
    ],
    reason: null,
  });
});

test('it is asked for exactly what is read', async () => {
  const fields = 'index,uuid,name,memory.total,memory.used,utilization.gpu,temperature.gpu,power.draw';
  await withSmi(`echo "$@" > arguments; echo '${a100}'`, async (folder) => {
    await readGpus(`${folder}:/usr/bin:/bin`);
    expect(readFileSync(join(folder, 'arguments'), 'utf8')).toBe(`--query-gpu=${fields} --format=csv,noheader,nounits\n`);
  });
});

test.each<[string, string, string]>([
  ['is missing', 'the name of another', 'nvidia-smi is not installed on this machine.'],
  ['lists nothing', 'true', 'nvidia-smi lists no GPU.'],
  ['says so in a sentence', 'echo "No devices were found"', 'nvidia-smi lists no GPU.'],
  ['fails on standard error', 'echo "no permission" >&2; exit 4', 'nvidia-smi failed: no permission'],
  [
    'fails on standard output, as it does without a driver',
    'echo "could not talk to the driver"; exit 9',
    'nvidia-smi failed: could not talk to the driver',
  ],
  ['fails without a word', 'exit 1', 'nvidia-smi failed: it does not say why.'],
])('null with a reason when it %s', async (_name, script, reason) => {
  const read = reason.includes('not installed') ? readGpus('/nowhere') : reading(script);
  expect(await read).toEqual({ gpus: null, reason });
});

test('one that hangs, also with its standard output held open by another process, is given up and killed', async () => {
  const script = 'sleep 1000 & echo $! > grandchild; echo $$ > pid; exec sleep 1000';
  await withSmi(script, async (folder) => {
    const pidIn = (name: string) => Number(readFileSync(join(folder, name), 'utf8'));
    expect(await readGpus(`${folder}:/usr/bin:/bin`)).toEqual({ gpus: null, reason: 'nvidia-smi gave no answer within 5 seconds.' });
    process.kill(pidIn('grandchild'), 'SIGKILL');
    await until(() => identify(pidIn('pid')) === null);
  });
});

test('readings that are asked for at the same time are one', async () => {
  await withSmi(`echo x >> runs; until [ -e go ]; do sleep 0.01; done; echo '${a100}'`, async (folder) => {
    const path = `${folder}:/usr/bin:/bin`;
    const first = readGpus(path);
    await until(() => existsSync(join(folder, 'runs')));
    const others = [readGpus(path), readGpus(path)];
    writeFileSync(join(folder, 'go'), '');
    const read = await Promise.all([first, ...others]);
    expect(read.map((r) => r.gpus?.length)).toEqual([1, 1, 1]);
    expect(readFileSync(join(folder, 'runs'), 'utf8')).toBe('x\n');
  });
});

test('a driver that answers late is asked again: jobs get the GPU without a restart', async () => {
  await withSmi(`[ -e ready ] || { echo 'not ready' >&2; exit 9; }; echo '${a100}'`, async (folder) => {
    const watch = await watchGpus(`${folder}:/usr/bin:/bin`, createLog({ logLevel: 'silent' }));
    try {
      expect(watch.of([0])).toEqual({ devices: '', missing: 'nvidia-smi failed: not ready', maybe: true });
      writeFileSync(join(folder, 'ready'), '');
      await until(() => watch.of([0]).devices !== '');
      expect([watch.of([0, 1]), watch.of([])]).toEqual([
        { devices: 'GPU-6f7e', missing: null, maybe: true },
        { devices: '', missing: null, maybe: true },
      ]);
    } finally {
      watch.stop();
    }
  });
});

test('a GPU that somebody has seen is one that jobs get, before nvidia-smi is asked again', async () => {
  await withSmi(`[ -e ready ] || { echo 'not ready' >&2; exit 9; }; echo '${a100}'`, async (folder) => {
    const watch = await watchGpus(`${folder}:/usr/bin:/bin`, createLog({ logLevel: 'silent' }));
    try {
      const { askedAgainAt } = watch.state();
      writeFileSync(join(folder, 'ready'), '');
      await until(async () => (await readGpus(`${folder}:/usr/bin:/bin`)).gpus !== null);
      expect(watch.of([0])).toEqual({ devices: 'GPU-6f7e', missing: null, maybe: true });
      expect([askedAgainAt !== null, watch.state()]).toEqual([
        true,
        { known: expect.objectContaining({ reason: null }), askedAgainAt: null },
      ]);
    } finally {
      watch.stop();
    }
  });
});

test('a machine without nvidia-smi has no GPU for good', async () => {
  const watch = await watchGpus('/nowhere', createLog({ logLevel: 'silent' }));
  expect(watch.of([0])).toEqual({ devices: '', missing: 'nvidia-smi is not installed on this machine.', maybe: false });
});
