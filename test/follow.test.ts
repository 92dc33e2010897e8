import { setImmediate } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import { createBus } from '../src/bus.ts';
import { every, follow, sharedReading } from '../src/follow.ts';

/** Bytes of the heap that something still refers to. */
function heapBytes(): number {
  setFlagsFromString('--expose_gc');
  runInNewContext('gc')();
  return process.memoryUsage().heapUsed;
}

/** After this number nothing comes. */
const end = 200_000;

/** Numbers that grow, a reader of which is woken for each. */
function numbers() {
  const bus = createBus();
  let last = 0;
  let listeners = 0;
  const read = (padding = '') => {
    let cursor = 0;
    return follow<string>(
      (wake) => {
        const off = bus.on('jobEvent', 'n', wake);
        listeners += 1;
        return () => {
          listeners -= 1;
          off();
        };
      },
      function* () {
        while (cursor < last) {
          cursor += 1;
          yield `${cursor} ${padding}`;
        }
        return cursor === end;
      },
    );
  };
  const tell = (count = 1) => {
    for (let i = 0; i < count; i += 1) {
      last += 1;
      bus.wake('jobEvent', 'n');
    }
  };
  const finish = () => {
    last = end;
    bus.wake('jobEvent', 'n');
  };
  return { read, tell, finish, listeners: () => listeners };
}

test('whatever is told before, between and after the reads comes once and in order', async () => {
  const { read, tell } = numbers();
  tell(3);
  const stream = read();
  const seen: number[] = [];
  for await (const item of stream) {
    seen.push(Number.parseInt(item, 10));
    if (seen.length < 50) tell(seen.length % 3);
    if (seen.length % 7 === 0) await setImmediate();
    if (seen.length === 40) break;
  }
  expect(seen).toEqual(Array.from({ length: 40 }, (_, i) => i + 1));
  const waiting = read();
  for (let i = 0; i < 3; i += 1) await waiting.next();
  await waiting.return();
});

test('a reader who does not read costs nothing, however often it is woken, and then gets all', async () => {
  const { read, tell } = numbers();
  const laggard = read('x'.repeat(1000));
  tell();
  await laggard.next();
  const before = heapBytes();
  for (let i = 0; i < 100; i += 1) {
    tell(1000);
    await setImmediate();
  }
  // 100,000 items that were kept are 100 MB.
  expect((heapBytes() - before) / 2 ** 20, 'MiB').toBeLessThan(5);
  for (let n = 2; n <= 100_001; n += 1) expect(Number.parseInt((await laggard.next()).value as string, 10)).toBe(n);
  await laggard.return();
});

test('a stream that is left, before, while or after it waits, ends, and nothing listens for it any more', async () => {
  const { read, tell, listeners } = numbers();
  const unread = read();
  await unread.return();
  expect(await unread.next()).toEqual({ done: true, value: undefined });

  const waiting = read();
  const next = waiting.next();
  await setImmediate();
  expect(listeners()).toBe(1);
  await waiting.return();
  expect(await next).toEqual({ done: true, value: undefined });

  const between = read();
  tell(5);
  await between.next();
  expect(listeners()).toBe(1);
  await between.return();
  expect(await between.next()).toEqual({ done: true, value: undefined });
  expect(listeners()).toBe(0);
});

test('a read that says that nothing can come any more ends the stream; one that fails fails it; both detach', async () => {
  const { read, finish, listeners } = numbers();
  const ended = (async () => {
    let count = 0;
    for await (const _ of read()) count += 1;
    return count;
  })();
  await setImmediate();
  finish();
  expect(await ended).toBe(200_000);
  expect(listeners()).toBe(0);

  let isAttached = false;
  const failing = follow(
    () => {
      isAttached = true;
      return () => {
        isAttached = false;
      };
    },
    // biome-ignore lint/correctness/useYield: it fails before its first item.
    function* (): Generator<number, boolean> {
      throw new Error('the disk is gone');
    },
  );
  await expect(failing.next()).rejects.toThrow('the disk is gone');
  expect(isAttached).toBe(false);
  expect((await failing.next()).done).toBe(true);
});

test('100,000 streams that were left cost no memory', async () => {
  const { read } = numbers();
  const before = heapBytes();
  for (let i = 0; i < 100_000; i += 1) await read().return();
  expect((heapBytes() - before) / 2 ** 20, 'MiB').toBeLessThan(5);
});

test('an interval out of its range is refused with its value', () => {
  for (const ms of [0, 249, 60_001, -1]) expect(() => every(ms)).toThrow(`it is ${ms}`);
  for (const ms of [250, 60_000]) every(ms)(() => {})();
});

test('a reading is shared by those who ask at the same time and read the same', async () => {
  let readings = 0;
  const read = sharedReading(
    ({ machine }: { machine: object }) => machine,
    async () => {
      readings += 1;
      await setImmediate();
      return readings;
    },
  );
  const machine = {};
  expect(await Promise.all(Array.from({ length: 500 }, () => read({ machine })))).toEqual(Array(500).fill(1));
  expect(await read({ machine: {} })).toBe(2);
});
