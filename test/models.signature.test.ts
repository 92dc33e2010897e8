import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import type { z } from 'zod';
import { canonicalHash, canonicalJson } from '../src/canonical.ts';
import { datasetVersion } from '../src/datasets/tables.ts';
import { JobFailure } from '../src/jobs/kinds.ts';
import type { OnnxMeta } from '../src/jobs/results.ts';
import { lineageHashOf } from '../src/models/lineage.ts';
import { Labels, onnxSignature, weightsSignature } from '../src/models/signature.ts';
import { type ModelVersion, modelVersion } from '../src/models/tables.ts';
import { presetPreprocess } from '../src/vision/spec.ts';
import { withStorage } from './support/storage.ts';
import { unprintables } from './support/unprintable.ts';

type Onnx = z.infer<typeof OnnxMeta>;

const onnx = (changes: Partial<Onnx> = {}): Onnx => ({
  inputs: [{ name: 'image', elementType: 'FLOAT', shape: ['batch', 3, 32, 32] }],
  outputs: [{ name: 'y', elementType: 'FLOAT', shape: ['batch', 2] }],
  operators: { Conv: 2 },
  opsets: { 'ai.onnx': 18 },
  irVersion: 9,
  producer: 'test',
  parameters: 10,
  elementTypes: { FLOAT: 10 },
  labels: null,
  preprocess: null,
  metadata: {},
  metadataTruncated: false,
  weightsHash: null,
  exporter: null,
  ...changes,
});
const weights = {
  preset: 'resnet50',
  weightsHash: 'a'.repeat(64),
  classCount: 2,
  parameters: 10,
  preprocess: null,
  epoch: null,
  metrics: null,
};
const nothing = { labels: null, preprocess: null };

function failure(run: () => unknown): { code: string; message: string } {
  try {
    run();
  } catch (error) {
    if (error instanceof JobFailure) return error;
    throw error;
  }
  throw new Error('no failure');
}

describe('precision', () => {
  test.each<[string, Partial<Onnx>, string]>([
    ['32-bit weights', { elementTypes: { FLOAT: 10, INT64: 4 } }, 'FP32'],
    ['no weights', { elementTypes: {} }, 'FP32'],
    ['mostly 16-bit weights', { elementTypes: { FLOAT: 3, FLOAT16: 7 } }, 'FP16'],
    ['a few 16-bit constants', { elementTypes: { FLOAT: 7, FLOAT16: 3 } }, 'FP32'],
    ['quantised, with quantise and dequantise nodes', { operators: { Conv: 1, DequantizeLinear: 2, QuantizeLinear: 1 } }, 'INT8'],
    ['quantised weights alone', { operators: { MatMul: 1, DequantizeLinear: 1 } }, 'INT8'],
    ['integer convolutions', { operators: { ConvInteger: 1 } }, 'INT8'],
    ['quantised operators', { operators: { QLinearConv: 1 } }, 'INT8'],
    ['quantised operators of ONNX Runtime', { operators: { 'com.microsoft::QLinearAdd': 1 } }, 'INT8'],
    ['8-bit data that is not weights', { elementTypes: { FLOAT: 5, UINT8: 100 } }, 'FP32'],
  ])('of %s', (_what, changes, precision) => expect(onnxSignature(onnx(changes), nothing).precision).toBe(precision));
});

describe('labels and preprocessing', () => {
  const own = onnx({ labels: ['cat', 'dog'], preprocess: presetPreprocess(32) });

  test('of a file that Whetstone made are read from it', () => {
    expect(onnxSignature(own, nothing)).toMatchObject({ labelsJson: ['cat', 'dog'], preprocessJson: presetPreprocess(32) });
  });
  test.each(Object.entries(unprintables))(
    'of a file of which one holds %s are not taken over, and a user cannot give them',
    (_what, odd) => {
      for (const name of [odd, `dog${odd}`, `d${odd}og`]) {
        expect(onnxSignature(onnx({ labels: ['cat', name] }), nothing).labelsJson).toBeNull();
        expect(Labels.safeParse(['cat', name]).error?.issues).toMatchObject([
          { path: [1], message: 'A label has no control characters and no direction marks.' },
        ]);
      }
    },
  );
  test('that the user gives count before those of the file', () => {
    const described = { labels: ['eel', 'fox'], preprocess: { ...presetPreprocess(32), channels: 'BGR' as const } };
    expect(onnxSignature(own, described)).toMatchObject({ labelsJson: described.labels, preprocessJson: described.preprocess });
  });
  test('are unknown where nobody tells', () => {
    expect(onnxSignature(onnx(), nothing)).toMatchObject({ labelsJson: null, preprocessJson: null, preset: null, weightsHash: null });
  });
  test('of weights: the preset’s preprocessing, and the labels that were given', () => {
    expect(weightsSignature(weights, nothing)).toMatchObject({
      labelsJson: null,
      preprocessJson: presetPreprocess(224),
      precision: 'FP32',
    });
    const described = { labels: ['cat', 'dog'], preprocess: presetPreprocess(64) };
    expect(weightsSignature(weights, described)).toMatchObject({ labelsJson: ['cat', 'dog'], preprocessJson: presetPreprocess(64) });
  });

  test('of weights that take one image size only: another one is refused', () => {
    const transformer = { ...weights, preset: 'vit_b_16' };
    expect(weightsSignature(transformer, nothing).preprocessJson).toEqual(presetPreprocess(224));
    const { code, message } = failure(() => weightsSignature(transformer, { labels: null, preprocess: presetPreprocess(64) }));
    expect(code).toBe('PREPROCESS_INVALID');
    expect(message).toBe('vit_b_16 takes images of 224 × 224 pixels only; the preprocessing says 64 × 64.');
  });

  test('labels that are not as many as the classes are refused', () => {
    const described = { labels: ['cat'], preprocess: null };
    for (const run of [() => onnxSignature(onnx(), described), () => weightsSignature(weights, described)]) {
      expect(failure(run)).toMatchObject({
        code: 'LABELS_INVALID',
        message: expect.stringContaining('1 labels, but the model has 2 classes'),
      });
    }
  });
  test.each<[string, Onnx['outputs']]>([
    ['symbolic', [{ name: 'y', elementType: 'FLOAT', shape: ['batch', 'classes'] }]],
    ['unknown', [{ name: 'y', elementType: 'FLOAT', shape: null }]],
  ])('labels of an output whose last dimension is %s are taken as they are', (_what, outputs) => {
    expect(onnxSignature(onnx({ outputs }), { labels: ['cat'], preprocess: null }).labelsJson).toEqual(['cat']);
  });

  const detector = (...shapes: (number | string)[][]) =>
    onnx({
      outputs: shapes.map((shape, i) => ({ name: `y${i}`, elementType: 'FLOAT', shape })),
      metadata: { 'whetstone.task': 'DETECTION' },
    });
  test.each<[string, Onnx]>([
    ['boxes and scores', detector(['batch', 525, 4], ['batch', 525, 2])],
    ['boxes and scores in one', detector(['batch', 6, 525])],
    ['another layout, whose axes are open', detector(['batch', 'height', 'width'])],
  ])('labels of a detector fit an axis of its outputs: %s', (_what, meta) => {
    expect(onnxSignature(meta, { labels: ['cat', 'dog'], preprocess: null }).labelsJson).toEqual(['cat', 'dog']);
    expect(
      onnxSignature({ ...meta, metadata: {} }, { task: 'DETECTION', labels: ['cat', 'dog'], preprocess: null }).labelsJson,
    ).toHaveLength(2);
  });
  test('labels that fit no axis of a detector are refused', () => {
    const run = () => onnxSignature(detector(['batch', 525, 4], ['batch', 525, 3]), { labels: ['cat', 'dog'], preprocess: null });
    expect(failure(run)).toMatchObject({
      code: 'LABELS_INVALID',
      message: expect.stringContaining('y0 batch × 525 × 4, y1 batch × 525 × 3'),
    });
  });

  const shaped = (shape: Onnx['inputs'][number]['shape']) => onnx({ inputs: [{ name: 'image', elementType: 'FLOAT', shape }] });
  test.each<[string, (string | number)[]]>([
    ['another size', ['batch', 3, 64, 32]],
    ['one channel', ['batch', 1, 32, 32]],
    ['the other layout', ['batch', 32, 32, 3]],
    ['rows of features', ['batch', 128]],
  ])('preprocessing for an input of %s is refused', (_what, shape) => {
    const { code, message } = failure(() => onnxSignature(shaped(shape), { labels: null, preprocess: presetPreprocess(32) }));
    expect(code).toBe('PREPROCESS_INVALID');
    expect(message).toContain(`batch × 3 × 32 × 32, but the model takes ${shape.join(' × ')}`);
  });
  test.each<[string, (string | number)[] | null]>([
    ['a fixed batch', [1, 3, 32, 32]],
    ['symbolic sides', ['N', 3, 'height', '?']],
    ['unknown', null],
  ])('preprocessing for an input of %s is taken', (_what, shape) => {
    expect(onnxSignature(shaped(shape), { labels: null, preprocess: presetPreprocess(32) }).preprocessJson).toEqual(presetPreprocess(32));
  });
});

describe('canonical JSON', () => {
  test('sorts keys at every depth by their UTF-16 units and leaves undefined out', () => {
    const value = { b: [{ z: 1, a: null }], '10': 1, '9': true, é: 'ü"', a: undefined };
    expect(canonicalJson(value)).toBe('{"10":1,"9":true,"b":[{"a":null,"z":1}],"é":"ü\\""}');
  });
  test('does not depend on the order in which fields were set', () => {
    expect(canonicalHash({ a: 1, b: 2 })).toBe(canonicalHash({ b: 2, a: 1 }));
    expect(canonicalHash({ a: 1 })).toBe(createHash('sha256').update('{"a":1}').digest('hex'));
  });
  test.each([Number.NaN, Number.POSITIVE_INFINITY, undefined])('refuses %s', (value) => {
    expect(() => canonicalJson([value])).toThrow('no JSON form');
  });
});

test('the lineage hash depends on the bytes, the request, the parent and the dataset, and on nothing else', () =>
  withStorage(async ({ db }) => {
    db.$client.pragma('foreign_keys = OFF');
    const insert = (id: string, lineageHash: string) => {
      const values = {
        id,
        modelId: 'm',
        number: Number(id),
        state: 'READY',
        format: 'ONNX',
        precision: 'FP32',
        origin: 'UPLOADED',
      } as const;
      db.insert(modelVersion)
        .values({ ...values, lineageHash, createdAt: Date.now() } as ModelVersion)
        .run();
    };
    insert('1', 'one');
    insert('2', 'one');
    insert('3', 'three');
    const dataset = (id: string, contentHash: string) =>
      db
        .insert(datasetVersion)
        .values({ id, datasetId: 'd', number: Number(id), state: 'READY', splitSeed: 0, contentHash, createdAt: 0 })
        .run();
    dataset('1', 'x');
    dataset('2', 'x');
    dataset('3', 'y');
    const base = { sha256: 'a', spec: { kind: 'TRAIN', epochs: 1 }, parentId: '1', datasetVersionId: '1' };
    const hash = (changes: Partial<typeof base> | { parentId: null } = {}) => lineageHashOf(db, { ...base, ...changes });
    expect(hash()).toMatch(/^[0-9a-f]{64}$/);
    expect(hash({ spec: { epochs: 1, kind: 'TRAIN' } as typeof base.spec })).toBe(hash());
    expect(hash({ parentId: '2', datasetVersionId: '2' })).toBe(hash());
    const others = [
      hash({ sha256: 'b' }),
      hash({ spec: { kind: 'TRAIN', epochs: 2 } }),
      hash({ parentId: '3' }),
      hash({ parentId: null }),
      hash({ datasetVersionId: '3' }),
    ];
    expect(new Set([hash(), ...others]).size).toBe(6);
  }));
