import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { isDisturbed, noiseBetween, readNoise } from '../src/benchmark/noise.ts';
import { withFolder } from './support/server.ts';

/** A machine whose files say this. */
function write(root: string, files: Record<string, string>): void {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
}

/** /proc/stat of 4 processors, in ticks of 10 ms. */
const stat = ({ user, idle, steal = 0 }: { user: number; idle: number; steal?: number }) =>
  `cpu  ${user} 0 0 ${idle} 0 0 0 ${steal} 0 0\ncpu0 1 0 0 1\ncpu1 1 0 0 1\ncpu2 1 0 0 1\ncpu3 1 0 0 1\nintr 5\n`;

/** Ten seconds in which this process used `own` seconds. */
async function between(before: string, after: string, own: number, threads: number) {
  return withFolder(async (root) => {
    write(root, { 'proc/stat': before });
    const first = { ...readNoise(root), ownUs: 0 };
    write(root, { 'proc/stat': after });
    return noiseBetween(first, { ...readNoise(root), ownUs: own * 1e6 }, threads);
  });
}

describe('contention', () => {
  const idle = stat({ user: 0, idle: 0 });

  test.each([
    [2, 0.25, 'the share of the time in which its threads waited for a processor'],
    [5, 0, 'what others used where it has more threads than processors: they wait for each other'],
  ])('on %s threads is %s: %s', (threads, contention) =>
    withFolder(async (root) => {
      const waited = (first: number, second: number) => ({
        'proc/self/task/7/schedstat': `900 ${first} 3\n`,
        'proc/self/task/8/schedstat': `900 ${second} 3\n`,
      });
      write(root, { 'proc/stat': idle, ...waited(1000, 0) });
      const before = { ...readNoise(root), atNs: 0, ownUs: 0 };
      write(root, { 'proc/stat': stat({ user: 40, idle: 0 }), ...waited(20_001_000, 30_000_000) });
      const after = { ...readNoise(root), atNs: 100e6, ownUs: 0.4e6 };
      expect(noiseBetween(before, after, threads).contention).toBeCloseTo(contention, 12);
    }),
  );

  test('without such counts is what others take from the threads of the measurement', async () => {
    // 4 processors for 10 s are 4,000 ticks. 2,000 of this process and 600 of others; 2 processors were left to them.
    expect(await between(idle, stat({ user: 2600, idle: 1400 }), 20, 2)).toMatchObject({ contention: 0 });
    // On 4 threads nothing was left: 600 of 4,000.
    const { contention } = await between(idle, stat({ user: 4000, idle: 0 }), 34, 4);
    expect(contention).toBeCloseTo(0.15, 12);
    // With 3 threads one processor: 1,600 of others are 600 too many, of 3,000.
    expect((await between(idle, stat({ user: 4000, idle: 0 }), 24, 3)).contention).toBeCloseTo(0.2, 12);
  });

  test('is none when the clock of the system is behind that of the process', async () => {
    expect(await between(idle, stat({ user: 10, idle: 3990 }), 20, 4)).toMatchObject({ contention: 0, steal: 0 });
  });
});

test.each([
  [{ contention: 0.011 }, true],
  [{ steal: 0.021 }, true],
  [{ throttled: 0.011 }, true],
  [{ contention: 0.01, steal: 0.02, throttled: 0.01 }, false],
  [{}, false],
])('a block with %j counts as disturbed: %s', (noise, disturbed) => {
  expect(isDisturbed({ contention: null, steal: null, throttled: null, ...noise })).toBe(disturbed);
});

test('steal is the share of all time that the hypervisor took', async () => {
  expect(await between(stat({ user: 0, idle: 0, steal: 100 }), stat({ user: 900, idle: 3000, steal: 200 }), 9, 1)).toMatchObject({
    steal: 0.025,
  });
});

describe('throttling', () => {
  test.each([
    ['version 2', { 'proc/self/cgroup': '0::/app\n' }, 'sys/fs/cgroup/app/cpu.stat'],
    ['version 2, seen from inside a container', { 'proc/self/cgroup': '0::/elsewhere\n' }, 'sys/fs/cgroup/cpu.stat'],
    ['version 1', { 'proc/self/cgroup': '5:memory:/m\n4:cpu,cpuacct:/app\n' }, 'sys/fs/cgroup/cpu/app/cpu.stat'],
  ])('is read of a control group of %s', (_name, files, path) =>
    withFolder(async (root) => {
      write(root, { ...files, [path]: 'usage_usec 7\nnr_periods 1000\nnr_throttled 10\nthrottled_usec 5\n' });
      const before = readNoise(root);
      write(root, { [path]: 'usage_usec 7\nnr_periods 1200\nnr_throttled 15\nthrottled_usec 5\n' });
      expect(noiseBetween(before, readNoise(root), 1)).toEqual({ steal: null, throttled: 0.025, contention: null });
    }),
  );

  test('does not happen without a quota', () =>
    withFolder(async (root) => {
      write(root, { 'proc/self/cgroup': '0::/\n', 'sys/fs/cgroup/cpu.stat': 'usage_usec 7\n' });
      expect(noiseBetween(readNoise(root), readNoise(root), 1).throttled).toBe(0);
    }));

  test('is unknown where the system has no control groups', () =>
    withFolder(async (root) => {
      expect(noiseBetween(readNoise(root), readNoise(root), 1)).toEqual({ steal: null, throttled: null, contention: null });
    }));
});

test.runIf(process.platform === 'linux')('this machine tells of itself', () => {
  const { steal, contention } = noiseBetween(readNoise(), readNoise(), 1);
  expect(steal).toBeGreaterThanOrEqual(0);
  expect(contention).toBeGreaterThanOrEqual(0);
});
