/** What of OpenVINO the contract of all engines does not hold. */
import { describe, expect, test, vi } from 'vitest';
import { type Datatype, datatypes } from '../src/engine/datatypes.ts';
import type { Tensor } from '../src/engine/engine.ts';
import { engines, readEngines } from '../src/engine/engines.ts';
import { findOpenvino } from '../src/engine/libraries.ts';
import { floats, openvinoMissing, rounds, whyNoOpenvino, withModels } from './support/engines.ts';

const unchecked = ['GatherND', 'ScatterElements', 'Slice', 'Split', 'Pad', 'Range', 'least', 'branch', 'function'].map(
  (kind) => `unchecked-${kind}`,
);
const doubles = ['cast', 'constant', 'initializer'].map((kind) => `double-${kind}`);
const fileOf = withModels([
  'matmuls',
  'spin',
  'renamed',
  'classifier-bytes',
  'checked',
  'dense',
  'cut',
  'normal',
  'types',
  'types-FP64,UINT64',
  ...unchecked,
  ...doubles,
]);

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

  test.each(unchecked)('refuses a model by which a request could read the memory of the host, or end it: %s', async (name) => {
    await expect(openVino(name)).rejects.toThrow(/^OpenVINO does not check .* in a \w+: unsafe\. Run the model with ONNX Runtime\.$/);
  });

  test('refuses a model with numbers of 64 bits, which it would compute in 32', async () => {
    for (const name of doubles) await expect(openVino(name)).rejects.toThrow('OpenVINO computes FP64 in 32 bits: unsafe.');
    await expect(openVino('types')).rejects.toThrow('OpenVINO computes UINT64 in 32 bits: in_UINT64.');
  });

  test.each([
    ['dense', [4, 4]],
    ['normal', [0, 0, 0, 0]],
  ])('refuses shapes that the model cannot take, by which it would read foreign memory or fail ever after: %s', async (name, made) => {
    const session = await openVino(name);
    const run = (size: number) => session.run(new Map([['x', floats([1, size], Array(size).fill(1))]]));
    const right = async () => expect([...((await run(4)).outputs.get('y')?.data ?? [])]).toEqual(made);
    await right();
    for (const size of [3, 5]) await expect(run(size)).rejects.toThrow();
    await right();
    await session.end();
  });

  test('refuses to run a model that multiplies a row as long as a value says, behind which it would read foreign memory', async () => {
    const session = await openVino('cut');
    const ends = { datatype: 'INT64', shape: [1], data: BigInt64Array.of(3n) } as const;
    const run = session.run(new Map<string, Tensor>([['x', floats([1, 4], [1, 1, 1, 1])]]).set('ends', ends));
    await expect(run).rejects.toThrow('A size within the model depends on values of its inputs');
    await session.end();
  });

  test('refuses unsigned integers that it would take for negative ones', async () => {
    const session = await openVino('types-FP64,UINT64');
    const zeros = session.signature.inputs.map(({ name, datatype }): [string, Tensor] => {
      const { array } = datatypes[datatype as Datatype];
      return [name, { datatype: datatype as Datatype, shape: [1], data: new array(1) }];
    });
    const large = new Map(zeros).set('in_UINT32', { datatype: 'UINT32', shape: [1], data: Uint32Array.of(2 ** 31) });
    await expect(session.run(large)).rejects.toThrow('Input in_UINT32 has the value 2147483648');
    await session.end();
  });

  test('runs a model whose steps, pads and deltas are constants', async () => {
    const session = await openVino('checked');
    const count = { datatype: 'INT64', shape: [], data: BigInt64Array.of(6n) } as const;
    const { outputs } = await session.run(new Map<string, Tensor>([['x', floats([4], [1, 2, 3, 4])]]).set('count', count));
    expect([...(outputs.get('y')?.data ?? [])]).toEqual([10, 15, 15, 15, 15, 15]);
    await session.end();
  });
});
