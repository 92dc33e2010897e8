import { describe, expect, test } from 'vitest';
import { floats, nativeMissing, rounds, runAlone, whyNoNative, withModels } from './support/engines.ts';

const fileOf = withModels(['spin', 'identity']);
const endless = 2n ** 60n;

describe.skipIf(nativeMissing !== null)(`the native runtime${whyNoNative}`, () => {
  const openNative = async (name: string) =>
    (await import('../src/engine/native.ts')).nativeOpener('ONNXRUNTIME_NATIVE')(fileOf(name), { intraOpThreads: 1 });

  // A wrong position in the table of ONNX Runtime's functions fails in one of these, and in `npm run test:native`.
  test('calls each function of the library that it uses: opens, describes, runs, fails, stops, closes', async () => {
    const session = await openNative('identity');
    expect(session.signature.inputs[0]).toEqual({ name: 'x', type: 'float32', datatype: 'FP32', shape: ['n', 4] });
    const { outputs } = await session.run(new Map([['x', floats([1, 4], [1, 2, 3, 4])]]));
    expect(outputs.get('y')).toEqual(floats([1, 4], [1, 2, 3, 4]));
    await expect(session.run(new Map())).rejects.toThrow();
    await expect(session.run(new Map([['x', floats([1, 4], [1, 2, 3, 4])]]), undefined, { deadlineMs: 0 })).rejects.toThrow('deadline');
    await session.close();
    await expect(session.run(new Map())).rejects.toThrow('The model is closed.');
    await expect(session.close()).rejects.toThrow('The model is closed already.');
  });

  test('stops a loop that never ends at its deadline, and runs the next', async () => {
    const session = await openNative('spin');
    await expect(session.run(rounds(endless), ['y'], { deadlineMs: 100 })).rejects.toThrow('did not end within 100 ms');
    expect((await session.run(rounds(3n), ['y'], { deadlineMs: 60_000 })).outputs.get('y')?.data).toEqual(BigInt64Array.of(3n));
    await session.close();
  });

  test('stops a run whose caller does not want it any more', async () => {
    const session = await openNative('spin');
    const controller = new AbortController();
    const run = session.run(rounds(endless), ['y'], { signal: controller.signal });
    controller.abort();
    await expect(run).rejects.toThrow('The run was cancelled.');
    await expect(session.run(rounds(3n), ['y'], { signal: controller.signal })).rejects.toThrow('aborted');
    expect((await session.run(rounds(3n))).outputs.get('y')?.data).toEqual(BigInt64Array.of(3n));
    await session.close();
  });

  test('computes beside the event loop, which goes on, and twenty runs of one session at once', async () => {
    const session = await openNative('spin');
    const controller = new AbortController();
    const stuck = Array.from({ length: 19 }, () => session.run(rounds(endless), ['y'], { signal: controller.signal }));
    const { outputs } = await session.run(rounds(3n));
    expect(outputs.get('y')?.data).toEqual(BigInt64Array.of(3n));
    controller.abort();
    const ends = await Promise.allSettled(stuck);
    expect(ends.every(({ status }) => status === 'rejected')).toBe(true);
    await session.close();
  });

  test('opens another model while runs compute, and closes one when its runs have ended', async () => {
    const session = await openNative('spin');
    const controller = new AbortController();
    const run = session.run(rounds(endless), ['y'], { signal: controller.signal });
    const closed = session.close();
    const other = await openNative('identity');
    expect((await other.run(new Map([['x', floats([1, 4], [1, 2, 3, 4])]]))).outputs.size).toBe(1);
    controller.abort();
    await expect(run).rejects.toThrow('The run was cancelled.');
    await closed;
    await other.close();
  });

  test('answers all runs that ended while JavaScript was busy in one turn of the event loop', async () => {
    const session = await openNative('identity');
    let answered = 0;
    const runs = Array.from({ length: 200 }, async (_, n) => {
      const run = await session.run(new Map([['x', floats([1, 4], [n, n, n, n])]]));
      answered += 1;
      return run;
    });
    // They compute meanwhile.
    const busyFrom = process.hrtime.bigint();
    while (process.hrtime.bigint() - busyFrom < 300_000_000n);
    const freeAt = Number(process.hrtime.bigint());
    await new Promise(setImmediate);
    const inOneTurn = answered;
    const ended = (await Promise.all(runs)).filter(({ endedNs }) => endedNs < freeAt - 50e6).length;
    expect(ended).toBeGreaterThan(1);
    expect(inOneTurn).toBeGreaterThanOrEqual(ended);
    await session.close();
  });

  test('computes a series without the thread of JavaScript, which is busy until its last run is taken', async () => {
    const session = await openNative('identity');
    const taken = new BigInt64Array(new SharedArrayBuffer(8));
    const share = { taken, total: 100 };
    const feeds = [new Map([['x', floats([1, 4], [1, 2, 3, 4])]])];
    const series = session.series(feeds, { firstFeed: 0, runsMax: 1000, untilNs: 2n ** 62n, share });
    const hangsAt = process.hrtime.bigint() + 10_000_000_000n;
    // It asks for one more than there are.
    while (Atomics.load(taken, 0) <= share.total && process.hrtime.bigint() < hangsAt);
    const freeAt = process.hrtime.bigint();
    const times = await series;
    expect(times).toHaveLength(200);
    expect(times.at(-1)).toBeLessThanOrEqual(freeAt);
    await session.close();
    await expect(session.series(feeds, { firstFeed: 0, runsMax: 1, untilNs: 0n, share: null })).rejects.toThrow('The model is closed.');
  });

  test.each(['idle', 'running'])('a process that has it open and %s ends when it is done, or told to', (state) => {
    expect(runAlone('endNative.ts', fileOf('spin'), state)).toBe(`${state}\n`);
  });
});
