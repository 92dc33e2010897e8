import { closeSync, createReadStream, existsSync, fstatSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { jsonLine } from '../canonical.ts';
import type { LogLine } from './progress.ts';

/** Lines of a job that are kept: further ones are dropped. */
const linesMax = 100_000;

const pathOf = (dataDir: string, jobId: string) => join(dataDir, 'logs', `${jobId}.jsonl`);

export interface JobLog {
  /** Stores a line and returns it with its number; null when the log or the disk is full. */
  write(line: Omit<LogLine, 'n'>): LogLine | null;
  close(): void;
}

/** Opens a job's log file to go on behind its last line. */
export async function openLog(dataDir: string, jobId: string): Promise<JobLog> {
  mkdirSync(join(dataDir, 'logs'), { recursive: true });
  let n = 0;
  for await (const line of readLog(dataDir, jobId, 0)) n = line.n;
  const file = openSync(pathOf(dataDir, jobId), 'a');
  // A server that was killed, and a full disk, may leave a line without its end: the next one must not become part of it.
  let cut = fstatSync(file).size > 0;
  return {
    write(line) {
      if (n >= linesMax) return null;
      const last = n + 1 === linesMax;
      const row = { n: n + 1, ...line, text: last ? `The log is full: it keeps ${linesMax} lines.` : line.text };
      const bytes = Buffer.from(`${cut ? '\n' : ''}${jsonLine(row)}`);
      try {
        cut = writeSync(file, bytes) < bytes.length;
      } catch {
        cut = true;
      }
      if (cut) return null;
      n += 1;
      return row;
    },
    close: () => closeSync(file),
  };
}

/** The lines of a job behind line `after`, in order. What a crash cut off is left out. */
export async function* readLog(dataDir: string, jobId: string, after: number): AsyncGenerator<LogLine, undefined> {
  const path = pathOf(dataDir, jobId);
  if (!existsSync(path)) return;
  const input = createReadStream(path);
  try {
    for await (const text of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
      const line = parseLine(text);
      if (line && line.n > after) yield line;
    }
  } finally {
    input.destroy();
  }
}

function parseLine(text: string): LogLine | null {
  try {
    return JSON.parse(text) as LogLine;
  } catch {
    return null;
  }
}
