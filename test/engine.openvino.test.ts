/** What of OpenVINO the contract of all engines does not hold. */
import { describe, expect, test, vi } from 'vitest';
import { engines, readEngines } from '../src/engine/engines.ts';
import { findOpenvino } from '../src/engine/libraries.ts';
import { floats, openvinoMissing, rounds, whyNoOpenvino, withModels } from './support/engines.ts';

const fileOf = withModels(['matmuls', 'spin', 'renamed', 'classifier-bytes']);

test('an OpenVINO that is not there is listed with the reason', async () => {
  vi.stubEnv('WHETSTONE_OPENVINO_LIBRARY', '/nowhere/libopenvino_c.so.2641');
  const state = (await readEngines('')).find(({ name }) => name === 'OPENVINO');
  vi.unstubAllEnvs();
  expect(state).toMatchObject({ title: 'OpenVINO on the processor', reason: expect.stringContaining('names no library of OpenVINO') });
  expect(state?.reason).not.toContain('/nowhere');
});

describe.skipIf(openvinoMissing !== null)(`OpenVINO${whyNoOpenvino}`, () => {
  const openVino = async (name: string, options: { runs?: number } = {}) => {
    const { startRuntime } = await import('../src/engine/native.ts');
    const runtime = startRuntime({ threadsMax: 4 });
    const session = await runtime.open(fileOf(name), { engine: 'OPENVINO', intraOpThreads: 1, ...options });
    return Object.assign(session, { end: () => session.close().finally(() => runtime.close()) });
  };
  /** Some seconds. */
  const long = () => new Map([['x', floats([8192, 512], Array(8192 * 512).fill(1))]]);
  const short = () => new Map([['x', floats([1, 512], Array(512).fill(1))]]);

  test('has the version of its library', () => {
    expect(engines.OPENVINO.version).toBe(findOpenvino()?.version);
    expect(engines.OPENVINO.version).toMatch(/^openvino 20\d\d\.\d\.\d$/);
  });

  test('names the dimensions, and the outputs that have several names, as the file does', async () => {
    const renamed = await openVino('renamed');
    expect([renamed.signature.inputs[0]?.shape, renamed.signature.outputs[0]?.shape]).toEqual([
      ['n', 4],
      ['m', 4],
    ]);
    await renamed.end();
    const bytes = await openVino('classifier-bytes');
    expect(bytes.signature.outputs.map(({ name }) => name)).toEqual(['y']);
    await bytes.end();
  });

  test('stops a run at its deadline, or when nobody wants it any more, and runs the next', async () => {
    const session = await openVino('matmuls');
    await expect(session.run(long(), ['y'], { deadlineMs: 100 })).rejects.toThrow('did not end within 100 ms');
    const controller = new AbortController();
    const run = session.run(long(), ['y'], { signal: controller.signal });
    controller.abort();
    await expect(run).rejects.toThrow('The run was cancelled.');
    expect((await session.run(short())).outputs.get('y')?.data).toEqual(new Float32Array(512).fill(1));
    await session.end();
  });

  test('stops runs that wait for one that computes', async () => {
    const session = await openVino('matmuls', { runs: 1 });
    const controller = new AbortController();
    const runs = [1, 2, 3, 4].map(() => session.run(long(), ['y'], { signal: controller.signal }));
    controller.abort();
    expect((await Promise.allSettled(runs)).map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected', 'rejected']);
    expect((await session.run(short())).outputs.size).toBe(1);
    await session.end();
  });

  test('refuses integers that it would cut off, and computes with those of 32 bits', async () => {
    const session = await openVino('spin');
    await expect(session.run(rounds(2n ** 40n))).rejects.toThrow('Input rounds has the value 1099511627776');
    await expect(session.run(rounds(-(2n ** 31n) - 1n))).rejects.toThrow('32 bits');
    expect((await session.run(rounds(3n))).outputs.get('y')?.data).toEqual(BigInt64Array.of(3n));
    await session.end();
  });
});
