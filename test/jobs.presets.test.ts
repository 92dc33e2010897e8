import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { beforeOf, checkpointBytes, type PresetName, preprocessOf, presets, storedHyperparameters } from '../src/jobs/presets.ts';
import { TrainSpec } from '../src/jobs/specs.ts';
import { batchSizeFor } from '../src/training/batchSize.ts';
import { trainingOf, trainJob } from '../src/training/train.ts';
import { presetPreprocess } from '../src/vision/spec.ts';

/** Those that every stored training has: they were there from the beginning. */
const first = {
  CLASSIFICATION: `imageSize epochs batchSize optimizer learningRate momentum weightDecay warmupSteps labelSmoothing emaDecay gradientClip
    earlyStopping mixedPrecision flip cropScale colorJitter erasing`.split(/\s+/),
  DETECTION: `imageSize epochs batchSize optimizer learningRate momentum weightDecay warmupSteps emaDecay gradientClip earlyStopping
    mixedPrecision flip verticalFlip scale colorJitter mosaic mosaicUntil`.split(/\s+/),
};

describe('a hyperparameter that was added', () => {
  const shape = { old: z.number().default(1), added: z.number().default(0.5).describe('It does more.').meta({ before: 0 }) };

  test('says with which value a run does what it did before, and keeps its description', () => {
    expect(beforeOf(shape)).toEqual({ added: 0 });
    // Where the trainer reads it.
    const { properties } = z.toJSONSchema(z.object(shape));
    expect(properties?.added).toMatchObject({ default: 0.5, description: 'It does more.', before: 0 });
  });

  test.each(Object.keys(presets) as PresetName[])('of %s does not start suspended trainings over: it has such a value', (preset) => {
    const { task, hyperparameters } = presets[preset];
    const added = Object.keys(hyperparameters.shape).filter((name) => !first[task].includes(name));
    expect(added.filter((name) => !(name in beforeOf(hyperparameters.shape)))).toEqual([]);
    const stored = Object.fromEntries(first[task].map((name) => [name, `stored ${name}`]));
    expect(storedHyperparameters(preset, stored)).toEqual({ ...beforeOf(hyperparameters.shape), ...stored });
  });

  test('is part of a training’s specification, as all of them are', () => {
    const [classification] = TrainSpec.options;
    expect(Object.keys(classification.shape.hyperparameters.shape)).toEqual(Object.keys(presets.resnet50.hyperparameters.shape));
  });
});

test('a detector on the backbone of a classifier sees images with its mean and deviation, and in grey with their average', () => {
  const { mean, std } = presetPreprocess(64, 'CLASSIFICATION');
  expect(preprocessOf('yolov8_resnet18', { imageSize: 64 })).toEqual({ ...presetPreprocess(64, 'DETECTION'), mean, std });
  expect(preprocessOf('yolov8n', { imageSize: 64 })).toEqual(presetPreprocess(64, 'DETECTION'));
  const grey = preprocessOf('yolov8_resnet18', { imageSize: 64, channels: 'GREY' });
  expect(grey).toMatchObject({ channels: 'GREY', mean: [expect.closeTo(0.449)], std: [expect.closeTo(0.226)] });
});

describe('a batch size that is left open', () => {
  const gibibytes = (n: number) => n * 2 ** 30;
  const cpu = (n: number) => ({ on: 'cpu', bytes: gibibytes(n) }) as const;
  const gpu = (n: number) => ({ on: 'gpu', bytes: gibibytes(n) }) as const;

  test('is a power of two that fits into the memory', () => {
    for (const memory of [cpu(2), cpu(4), cpu(16), gpu(8), gpu(80)]) {
      for (const [preset, size] of [
        ['resnet50', 224],
        ['convnext_tiny', 224],
        ['yolov8m', 640],
      ] as const) {
        const chosen = batchSizeFor(preset, size, 1_000_000, memory);
        expect(Math.log2(chosen) % 1).toBe(0);
        const bytes = chosen * presets[preset].activationBytes + checkpointBytes(preset);
        expect(chosen === 4 || bytes < memory.bytes).toBe(true);
      }
    }
    expect(batchSizeFor('resnet50', 224, 1_000_000, cpu(2))).toBeLessThan(batchSizeFor('resnet50', 224, 1_000_000, cpu(16)));
    expect(batchSizeFor('yolov8n', 640, 1_000_000, gpu(8))).toBeLessThan(batchSizeFor('yolov8n', 320, 1_000_000, gpu(8)));
  });

  test('is not larger than what makes a step faster, and leaves an epoch twenty steps', () => {
    expect(batchSizeFor('resnet18', 224, 1_000_000, cpu(64))).toBe(32);
    expect(batchSizeFor('yolov8n', 160, 1_000_000, cpu(64))).toBe(16);
    expect(batchSizeFor('resnet18', 224, 1_000_000, gpu(80))).toBe(128);
    expect(batchSizeFor('resnet18', 224, 400, gpu(80))).toBe(16);
    expect(batchSizeFor('resnet18', 224, 10, gpu(80))).toBe(4);
  });
});

test('SGD has a weight decay of its own, unless one is given', () => {
  const decayOf = (given: Record<string, unknown>, others = {}) => trainingOf('resnet50', given, others).hyperparameters.weightDecay;
  expect(decayOf({ optimizer: 'SGD' })).toBe(0.005);
  expect(decayOf({})).toBe(0.05);
  expect(decayOf({ optimizer: 'SGD', weightDecay: 0.02 })).toBe(0.02);
  expect(decayOf({ optimizer: 'SGD' }, { weightDecay: 0.03 })).toBe(0.03);
});

test('a detector of 1024 px that was suspended before the limit came ends with a sentence that says what to do', async () => {
  const hyperparameters = { ...presets.yolov8n.hyperparameters.parse({}), imageSize: 1024 };
  const job = {
    kind: 'TRAIN',
    specVersion: 2,
    specJson: { preset: 'yolov8n', hyperparameters, datasetVersionId: 'd', init: { from: 'SCRATCH' } },
  };
  const says = /hyperparameters that this one does not: imageSize is 1024 \(.*928\)\. Start a new training with others\./;
  const launch = async () => trainJob.launch({} as never, { job, attemptNumber: 2, workDir: '/', resumeFrom: null } as never);
  await expect(launch()).rejects.toMatchObject({ code: 'SPEC_INVALID', message: expect.stringMatching(says) });
  expect(() => trainJob.redo?.({} as never, job as never)).toThrow(says);
});
