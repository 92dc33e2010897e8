import { appendFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { logReader, openLog, readLog } from '../src/jobs/logs.ts';
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

test('lines are found behind any number, however long they are, whatever a crash left between them', () =>
  withFolder(async (folder) => {
    const log = await openLog(folder, 'a job');
    for (let i = 0; i < 600; i += 1) log.write(line('日'.repeat((i * 97) % 4000)));
    log.close();
    appendFileSync(fileIn(folder), `{"n":601,"text":"${'x'.repeat(300_000)}`);
    const again = await openLog(folder, 'a job');
    for (let i = 0; i < 200; i += 1) again.write(line('y'.repeat((i * 31) % 500)));
    again.close();
    for (const after of [0, 1, 2, 77, 300, 599, 600, 601, 650, 799, 800, 1e9]) {
      const numbers = (await linesOf(folder, after)).map(([n]) => n);
      expect(numbers).toEqual(Array.from({ length: Math.max(0, 800 - after) }, (_, i) => after + 1 + i));
    }
  }));

test('the last lines of a long log are read without the others', () =>
  withFolder(async (folder) => {
    const log = await openLog(folder, 'a job');
    for (let i = 0; i < 20_000; i += 1) log.write(line('x'.repeat(500)));
    log.close();
    const bytesRead = () => Number(/rchar: (\d+)/.exec(readFileSync('/proc/self/io', 'utf8'))?.[1]);
    const before = bytesRead();
    expect((await logReader(folder, 'a job', 19_990)(100)).map(({ n }) => n)).toEqual(Array.from({ length: 10 }, (_, i) => 19_991 + i));
    // The file has 11 MB.
    expect(bytesRead() - before).toBeLessThan(1_500_000);
  }));

test('a reader goes on where it was, with what was written since', () =>
  withFolder(async (folder) => {
    const next = logReader(folder, 'a job', 0);
    expect(await next(10)).toEqual([]);
    const log = await openLog(folder, 'a job');
    for (let i = 0; i < 5; i += 1) log.write(line(`${i}`));
    expect((await next(3)).map(({ n }) => n)).toEqual([1, 2, 3]);
    log.write(line('later'));
    expect((await next(10)).map(({ n }) => n)).toEqual([4, 5, 6]);
    expect(await next(10)).toEqual([]);
    log.close();
  }));
