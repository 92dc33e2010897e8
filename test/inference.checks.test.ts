/** A model file of any size is checked while the host answers. */
import { createHash } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { startChecks } from '../src/inference/models.ts';
import { stretchesOf } from './support/eventLoop.ts';

/** Writes an ONNX file of so many bytes, almost all of which are its description. Gives its hash, and the processor time that hashing takes. */
function writeLarge(file: string, bytes: number): { sha256: string; hashUs: number } {
  const lengthBytes = [0, 7, 14, 21, 28].map((bits) => ((bytes >>> bits) & 0x7f) | (bits < 28 ? 0x80 : 0));
  const pieces = [Buffer.from([(6 << 3) | 2, ...lengthBytes]), ...Array(bytes / 2 ** 22).fill(Buffer.alloc(2 ** 22, 'x'))];
  const hash = createHash('sha256');
  const fd = openSync(file, 'w');
  for (const piece of pieces) writeSync(fd, piece);
  closeSync(fd);
  const begun = process.threadCpuUsage();
  for (const piece of pieces) hash.update(piece);
  const ended = process.threadCpuUsage();
  return { sha256: hash.digest('hex'), hashUs: ended.user + ended.system - begun.user - begun.system };
}

test('while a file of 256 MiB is checked the event loop of the host is never busy for as much as a fifth of what its hash takes', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'whetstone-checks-'));
  const checks = startChecks();
  try {
    const file = join(folder, 'large.onnx');
    const { sha256, hashUs } = writeLarge(file, 2 ** 28);
    // Processor time of this thread: for how long it stands still is also up to what else the machine does.
    const { longestOfWork } = await stretchesOf(async () => expect(await checks.ask('problemOf', { file, sha256 })).toBeNull());
    expect(longestOfWork).toBeLessThan(hashUs / 5);
  } finally {
    await checks.close();
    rmSync(folder, { recursive: true });
  }
});
