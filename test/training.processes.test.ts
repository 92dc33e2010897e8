import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { batchSizeFor } from '../src/training/batchSize.ts';
import { requireBatchFor, requireSlots } from '../src/training/processes.ts';

const config = (slots: number, gpus: number) => {
  const folder = mkdtempSync(join(tmpdir(), 'whetstone-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const lines = Array.from({ length: gpus }, (_, n) => `echo '${n}, GPU-${n}, A, 1, 1, 0, 30, 9'`);
  writeFileSync(join(folder, 'nvidia-smi'), ['#!/bin/sh', ...lines].join('\n'), { mode: 0o755 });
  return {
    config: { slots, childEnv: { PATH: `${folder}:${process.env.PATH}` } } as unknown as Parameters<typeof requireSlots>[0]['config'],
  };
};

describe('the processes of a training', () => {
  test('need a slot each, and a GPU each where the machine has any', async () => {
    await expect(requireSlots(config(2, 0), 2, 'auto')).resolves.toBeUndefined();
    await expect(requireSlots(config(4, 2), 2, 'cuda')).resolves.toBeUndefined();
    await expect(requireSlots(config(4, 1), 2, 'cpu')).resolves.toBeUndefined();
    await expect(requireSlots(config(2, 4), 4, 'auto')).rejects.toThrow('4 processes take 4 slots, and the server has 2.');
    await expect(requireSlots(config(4, 1), 2, 'auto')).rejects.toThrow('2 processes need 2 GPUs, and the machine has 1.');
  });

  test('share a batch: it has an image for each, and is larger where it is left open', () => {
    expect(() => requireBatchFor(4, 3)).toThrow('A batch of 3 images cannot be divided among 4 processes.');
    expect(() => requireBatchFor(4, 4)).not.toThrow();
    const memory = { on: 'gpu', bytes: 80 * 2 ** 30 } as const;
    expect([1, 4].map((processes) => batchSizeFor('resnet18', 224, 1_000_000, memory, processes))).toEqual([128, 512]);
  });
});
