import { appendFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openLog, readLog } from '../src/jobs/logs.ts';
import type { LogLine } from '../src/jobs/progress.ts';
import { withFolder } from './support/server.ts';

const line = (text: string): Omit<LogLine, 'n'> => ({ at: 5, attemptNumber: 1, stream: 'stdout', text });

async function linesOf(folder: string, after = 0): Promise<[number, string][]> {
  const lines: [number, string][] = [];
  for await (const { n, text } of readLog(folder, 'a job', after)) lines.push([n, text]);
  return lines;
}

const fileIn = (folder: string) => join(folder, 'logs', 'a job.jsonl');

test('lines are numbered from 1, and go on behind the last one when the log is opened again', () =>
  withFolder(async (folder) => {
    expect(await linesOf(folder)).toEqual([]);
    for (const text of ['first', 'second']) {
      const log = await openLog(folder, 'a job');
      log.write(line(text));
      log.close();
    }
    expect(await linesOf(folder)).toEqual([
      [1, 'first'],
      [2, 'second'],
    ]);
    expect(await linesOf(folder, 1)).toEqual([[2, 'second']]);
    expect(await linesOf(folder, 2)).toEqual([]);
  }));

test('any text comes back as it was: line feeds, quotes, emptiness, other scripts', () =>
  withFolder(async (folder) => {
    const texts = ['', '"', '\\n', 'a\u2028b\u2029c', 'a\rb', '日本語 🪨', '\u0000', 'x'.repeat(4000)];
    const log = await openLog(folder, 'a job');
    for (const text of texts) expect(log.write(line(text))?.text).toBe(text);
    log.close();
    expect((await linesOf(folder)).map(([, text]) => text)).toEqual(texts);
  }));

test('a line that a crash cut off, at any byte, costs only itself', () =>
  withFolder(async (folder) => {
    const log = await openLog(folder, 'a job');
    log.write(line('whole'));
    const whole = readFileSync(fileIn(folder)).length;
    log.write(line('cut 日'));
    log.close();
    const all = readFileSync(fileIn(folder)).length;
    for (let bytes = all - 1; bytes >= whole; bytes -= 1) {
      truncateSync(fileIn(folder), bytes);
      const kept = await linesOf(folder);
      const again = await openLog(folder, 'a job');
      const n = again.write(line('next'))?.n;
      again.close();
      expect(await linesOf(folder)).toEqual([...kept, [n, 'next']]);
      expect(n).toBe(kept.length + 1);
      // Back to the cut.
      writeFileSync(fileIn(folder), readFileSync(fileIn(folder)).subarray(0, bytes));
    }
    expect(await linesOf(folder)).toEqual([[1, 'whole']]);
  }));

test('a disk that is full costs lines, not the job, and no number', () =>
  withFolder(async (folder) => {
    const log = await openLog(folder, 'a job');
    expect(log.write(line('first'))?.n).toBe(1);
    log.close();
    // A closed file refuses like a full disk does.
    expect(log.write(line('lost'))).toBeNull();
    const again = await openLog(folder, 'a job');
    expect(again.write(line('second'))?.n).toBe(2);
    again.close();
    expect(await linesOf(folder)).toEqual([
      [1, 'first'],
      [2, 'second'],
    ]);
  }));

test('100,000 lines are kept; the last one says so', () =>
  withFolder(async (folder) => {
    const log = await openLog(folder, 'a job');
    log.write(line('first'));
    log.close();
    const rows = Array.from({ length: 99_997 }, (_, i) => `${JSON.stringify({ n: i + 2, ...line('x') })}\n`);
    appendFileSync(fileIn(folder), rows.join(''));
    const again = await openLog(folder, 'a job');
    const full = 'The log is full: it keeps 100000 lines.';
    expect(['x', 'y', 'z'].map((text) => again.write(line(text))).map((l) => l && [l.n, l.text])).toEqual([
      [99_999, 'x'],
      [100_000, full],
      null,
    ]);
    again.close();
    expect(await linesOf(folder, 99_998)).toEqual([
      [99_999, 'x'],
      [100_000, full],
    ]);
  }));
