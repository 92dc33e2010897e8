/** A model file of any size is checked while the host answers. */
import { createHash } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { startChecks } from '../src/inference/models.ts';

/** Writes an ONNX file of so many bytes: almost all of them are its description. */
function writeLarge(file: string, bytes: number): string {
  const lengthBytes = [0, 7, 14, 21, 28].map((bits) => ((bytes >>> bits) & 0x7f) | (bits < 28 ? 0x80 : 0));
  const pieces = [Buffer.from([(6 << 3) | 2, ...lengthBytes]), ...Array(bytes / 2 ** 22).fill(Buffer.alloc(2 ** 22, 'x'))];
  const hash = createHash('sha256');
  const fd = openSync(file, 'w');
  for (const piece of pieces) {
    hash.update(piece);
    writeSync(fd, piece);
  }
  closeSync(fd);
  return hash.digest('hex');
}

test('while a file of 256 MiB is checked the event loop of the host never waits for as much as a fifth of that time', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'whetstone-checks-'));
  const checks = startChecks();
  try {
    const file = join(folder, 'large.onnx');
    const sha256 = writeLarge(file, 2 ** 28);
    let longestMs = 0;
    const startedMs = performance.now();
    let tickedMs = startedMs;
    const tick = () => {
      const now = performance.now();
      longestMs = Math.max(longestMs, now - tickedMs);
      tickedMs = now;
    };
    const timer = setInterval(tick, 1);
    expect(await checks.ask('problemOf', { file, sha256 })).toBeNull();
    clearInterval(timer);
    tick();
    expect(longestMs).toBeLessThan((tickedMs - startedMs) / 5);
  } finally {
    await checks.close();
    rmSync(folder, { recursive: true });
  }
});
