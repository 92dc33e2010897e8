import { writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { type Datatype, datatypes } from '../src/engine/datatypes.ts';
import type { EngineSession, Open, OpenOptions, Tensor } from '../src/engine/engine.ts';
import { engineNames, engines } from '../src/engine/engines.ts';
import { floats, withModels } from './support/engines.ts';

/** OpenVINO refuses models with these. */
const narrowed: Datatype[] = ['FP64', 'UINT64'];
const narrow = `types-${narrowed}`;
const models = [
  'types',
  narrow,
  'identity',
  'echo',
  'plus-1',
  'arithmetic',
  'lookup',
  'picked',
  'text',
  'classifier-halves',
  'classifier-bytes',
  'scalar',
];
const fileOf = withModels(models);

/** The processor's engines must agree in all of this; one of a GPU computes with other numbers, and is measured only. */
const names = engineNames.filter((name) => engines[name].device === 'cpu');
const missing = new Map(await Promise.all(names.map(async (name) => [name, await engines[name].missing('')] as const)));

describe.each(names)('%s', (name) => {
  const reason = missing.get(name) ?? null;
  const it = test.skipIf(reason !== null);
  const why = reason === null ? '' : ` (skipped: ${reason})`;

  async function withSession<T>(model: string, use: (session: EngineSession) => Promise<T>, options?: Partial<OpenOptions>): Promise<T> {
    const open: Open = await engines[name].load();
    const session = await open(fileOf(model), { intraOpThreads: 1, ...options });
    try {
      return await use(session);
    } finally {
      await session.close();
    }
  }
  const run = (model: string, inputs: Record<string, Tensor>, outputs?: string[]) =>
    withSession(model, (session) => session.run(new Map(Object.entries(inputs)), outputs));

  it(`says what a model takes and gives${why}`, () =>
    withSession('picked', async ({ signature }) => {
      expect(signature).toEqual({
        inputs: [{ name: 'x', type: 'float32', datatype: 'FP32', shape: ['n', 4] }],
        outputs: [{ name: 'y', type: 'int64', datatype: 'INT64', shape: ['n', 2] }],
      });
    }));

  it(`names the type of what it does not run${why}`, () =>
    withSession('text', async ({ signature }) => {
      expect(signature.inputs).toEqual([{ name: 'x', type: 'string', datatype: null, shape: ['n'] }]);
    }));

  it(`gives values of every type back as they are${why}`, () =>
    withSession(name === 'OPENVINO' ? narrow : 'types', async (session) => {
      const all = Object.keys(datatypes) as Datatype[];
      const computed = name === 'OPENVINO' ? all.filter((datatype) => !narrowed.includes(datatype)) : all;
      const inputs = computed.map((datatype): [string, Tensor] => {
        const { array } = datatypes[datatype];
        const data =
          datatype.endsWith('64') && datatype !== 'FP64'
            ? (array as BigInt64ArrayConstructor).of(0n, 1n)
            : (array as Uint8ArrayConstructor).of(0, 1);
        return [`in_${datatype}`, { datatype, shape: [2], data }];
      });
      const { outputs } = await session.run(new Map(inputs));
      expect([...outputs]).toEqual(inputs.map(([input, tensor]) => [input.replace('in', 'out'), tensor]));
    }));

  it(`computes in 16-bit floats${why}`, async () => {
    const one = 0x3c00;
    const data = new Uint16Array(3 * 32 * 32).fill(one);
    const { outputs } = await run('classifier-halves', { image: { datatype: 'FP16', shape: [1, 3, 32, 32], data } });
    expect(outputs.get('y')).toEqual({ datatype: 'FP16', shape: [1, 3], data: Uint16Array.of(one, one, one) });
  });

  it(`takes bytes${why}`, async () => {
    const data = new Uint8Array(3 * 32 * 32).fill(200);
    const { outputs } = await run('classifier-bytes', { image: { datatype: 'UINT8', shape: [1, 3, 32, 32], data } });
    expect(outputs.get('y')).toEqual({ datatype: 'FP32', shape: [1, 3], data: Float32Array.of(200, 200, 200) });
  });

  it(`takes 64-bit integers, and runs of other shapes one after the other${why}`, () =>
    withSession('lookup', async (session) => {
      for (const indices of [[2n], [0n, 1n, 2n], [1n, 1n]]) {
        const index: Tensor = { datatype: 'INT64', shape: [indices.length], data: BigInt64Array.from(indices) };
        const { outputs } = await session.run(new Map([['index', index]]));
        const rows = indices.flatMap((row) => [2 * Number(row) + 1, 2 * Number(row) + 2]);
        expect(outputs.get('y')).toEqual(floats([indices.length, 2], rows));
      }
    }));

  it(`takes and gives numbers without a dimension${why}`, async () => {
    const { outputs } = await run('scalar', { x: floats([], [2]) });
    expect(outputs.get('y')).toEqual(floats([], [3]));
  });

  it(`takes and gives tensors without values${why}`, async () => {
    const { outputs } = await run('identity', { x: floats([0, 4], []) });
    expect(outputs.get('y')).toEqual(floats([0, 4], []));
    const { outputs: none } = await run('picked', { x: floats([1, 4], [0, 0, 0, 0]) });
    expect(none.get('y')).toEqual({ datatype: 'INT64', shape: [0, 2], data: new BigInt64Array() });
  });

  const integers = (from: number): Tensor => ({
    datatype: 'INT32',
    shape: [1, 16],
    data: Int32Array.from({ length: 16 }, (_, i) => from + i),
  });
  it(`gives several outputs, or those that are named${why}`, () =>
    withSession('arithmetic', async (session) => {
      const inputs = new Map([
        ['INPUT0', integers(100)],
        ['INPUT1', integers(0)],
      ]);
      const { outputs } = await session.run(inputs);
      expect([...outputs.keys()]).toEqual(['OUTPUT0', 'OUTPUT1']);
      expect(outputs.get('OUTPUT0')?.data.at(3)).toBe(106);
      expect(outputs.get('OUTPUT1')?.data.at(3)).toBe(100);
      expect([...(await session.run(inputs, ['OUTPUT1'])).outputs.keys()]).toEqual(['OUTPUT1']);
      const { outputs: turned } = await session.run(inputs, ['OUTPUT1', 'OUTPUT0']);
      expect([...turned].map(([output, { data }]) => [output, data.at(3)])).toEqual([
        ['OUTPUT1', 100],
        ['OUTPUT0', 106],
      ]);
    }));

  it(`gives an output that is an input memory of its own${why}`, async () => {
    const input = floats([1, 4], [1, 2, 3, 4]);
    const { outputs } = await run('echo', { x: input });
    input.data.fill(0 as never);
    for (const output of ['x', 'y']) expect(outputs.get(output)).toEqual(floats([1, 4], [1, 2, 3, 4]));
  });

  const wrong: [string, Record<string, Tensor>, string[] | undefined, RegExp][] = [
    ['no input', {}, undefined, /x/],
    ['an input of another name', { z: floats([1, 4], [0, 0, 0, 0]) }, undefined, /x|z/],
    ['a shape that the model does not take', { x: floats([1, 5], [0, 0, 0, 0, 0]) }, undefined, /dimensions|shape/i],
    ['more dimensions', { x: floats([1, 1, 4], [0, 0, 0, 0]) }, undefined, /rank|dimensions|shape/i],
    ['another type', { x: { datatype: 'INT32', shape: [1, 4], data: new Int32Array(4) } }, undefined, /type/],
    ['more values than the shape holds', { x: floats([1, 4], [0, 0, 0, 0, 0]) }, undefined, /length|shape/],
    ['fewer values than the shape holds', { x: floats([1, 4], [0, 0, 0]) }, undefined, /length|shape/],
    ['an output that there is not', { x: floats([1, 4], [0, 0, 0, 0]) }, ['no'], /no/],
  ];
  test.skipIf(reason !== null).each(wrong)(`refuses %s, and runs the next${why}`, async (_, inputs, outputs, message) =>
    withSession('identity', async (session) => {
      await expect(session.run(new Map(Object.entries(inputs)), outputs)).rejects.toThrow(message);
      const right = await session.run(new Map([['x', floats([1, 4], [1, 2, 3, 4])]]));
      expect(right.outputs.get('y')).toEqual(floats([1, 4], [1, 2, 3, 4]));
    }),
  );

  it(`says why a run fails${why}`, async () => {
    const rows = (count: number): Tensor => ({ datatype: 'INT32', shape: [count, 16], data: new Int32Array(16 * count) });
    await expect(run('arithmetic', { INPUT0: rows(2), INPUT1: rows(3) })).rejects.toThrow(/shape|dimension|broadcast/i);
  });

  it(`refuses an index beyond 32 bits, whether the engine counts in 64 or not${why}`, async () => {
    const outside: Tensor = { datatype: 'INT64', shape: [1], data: BigInt64Array.of(2n ** 32n) };
    await expect(run('lookup', { index: outside })).rejects.toThrow(/out of data bounds|range|32 bits/);
  });

  it(`says why it does not open a file${why}`, async () => {
    const open = await engines[name].load();
    await expect(open(fileOf('none'), { intraOpThreads: 1 })).rejects.toThrow(/none\.onnx/);
    writeFileSync(fileOf('broken'), 'not a model');
    await expect(open(fileOf('broken'), { intraOpThreads: 1 })).rejects.toThrow(/broken\.onnx|protobuf/i);
  });

  it(`computes the graph as it is in the file when told so${why}`, async () => {
    const { outputs } = await withSession('plus-1', (session) => session.run(new Map([['x', floats([1, 4], [1, 2, 3, 4])]])), {
      optimized: false,
      intraOpThreads: 2,
    });
    expect(outputs.get('y')).toEqual(floats([1, 4], [2, 3, 4, 5]));
  });

  it(`says how long the run took, which is no longer than its caller waited${why}`, () =>
    withSession('identity', async (session) => {
      const startedAt = process.hrtime.bigint();
      const { runNs } = await session.run(new Map([['x', floats([1, 4], [1, 2, 3, 4])]]));
      expect(runNs).toBeGreaterThan(0);
      expect(runNs).toBeLessThanOrEqual(Number(process.hrtime.bigint() - startedAt));
    }));

  /** Starts and ends of a series, by turns. Fails where one run begins before the last has ended. */
  const oneAfterTheOther = (times: BigInt64Array, beganNs: bigint): void => {
    expect([beganNs, ...times]).toEqual([beganNs, ...times].sort((a, b) => Number(a - b)));
  };
  const feeds = [0, 100, 200].map((first) => new Map([['x', floats([1, 4], [first, first + 1, first + 2, first + 3])]]));
  const never = 2n ** 62n;

  it(`computes a series, one run after the other, and says when each began and ended${why}`, () =>
    withSession('plus-1', async (session) => {
      const beganNs = process.hrtime.bigint();
      const times = await session.series(feeds, { firstFeed: 2, runsMax: 50, untilNs: never, share: null });
      expect(times).toBeInstanceOf(BigInt64Array);
      expect(times).toHaveLength(100);
      oneAfterTheOther(times, beganNs);
      expect(times.at(-1)).toBeLessThanOrEqual(process.hrtime.bigint());
    }));

  it(`ends a series with the run that computes at its time, after one at least${why}`, () =>
    withSession('plus-1', async (session) => {
      expect(await session.series(feeds, { firstFeed: 0, runsMax: 50, untilNs: 0n, share: null })).toHaveLength(2);
      const untilNs = process.hrtime.bigint() + 20_000_000n;
      const times = await session.series(feeds, { firstFeed: 0, runsMax: 100_000, untilNs, share: null });
      expect(times.at(-1)).toBeGreaterThanOrEqual(untilNs);
      expect(times.at(-3) ?? 0n).toBeLessThan(untilNs);
    }));

  it(`computes as many runs as series share, and what a series takes it computes${why}`, () =>
    withSession('plus-1', async (session) => {
      // Not at the start of its memory.
      const taken = new BigInt64Array(new SharedArrayBuffer(24), 8, 1);
      const asked = { firstFeed: 0, runsMax: 1000, untilNs: never, share: { taken, total: 500 } };
      const both = await Promise.all([session.series(feeds, asked), session.series(feeds, asked)]);
      expect(both.map(({ length }) => length / 2).reduce((sum, runs) => sum + runs)).toBe(500);
      taken[0] = 0n;
      expect(await session.series(feeds, { ...asked, runsMax: 7 })).toHaveLength(14);
      expect(taken[0]).toBe(7n);
      taken[0] = 500n;
      expect(await session.series(feeds, asked)).toHaveLength(0);
    }));

  it(`says why a run of a series fails, and computes the next series${why}`, () =>
    withSession('identity', async (session) => {
      const [right] = feeds as [(typeof feeds)[number]];
      const asked = { firstFeed: 0, runsMax: 9, untilNs: never, share: null };
      await expect(session.series([right, new Map([['x', floats([1, 5], [0, 0, 0, 0, 0])]])], asked)).rejects.toThrow(/dimensions|shape/i);
      expect(await session.series([right], asked)).toHaveLength(18);
    }));

  it(`never mixes the answers of two clients${why}`, () =>
    withSession('plus-1', async (session) => {
      const client = async (first: number) => {
        for (let n = 0; n < 500; n += 1) {
          const value = first + n;
          const { outputs } = await session.run(new Map([['x', floats([1, 4], [value, value, value, value])]]));
          expect(outputs.get('y')?.data).toEqual(new Float32Array(4).fill(value + 1));
        }
      };
      await Promise.all([client(0), client(100_000)]);
    }));

  it(`answers twenty runs that were started at once, each with its own${why}`, () =>
    withSession('plus-1', async (session) => {
      const values = Array.from({ length: 20 }, (_, n) => n);
      const ran = await Promise.all(values.map((value) => session.run(new Map([['x', floats([1, 4], [value, value, value, value])]]))));
      expect(ran.map(({ outputs }) => outputs.get('y')?.data.at(0))).toEqual(values.map((value) => value + 1));
    }));
});
