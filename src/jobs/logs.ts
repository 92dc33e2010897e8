/**
 * The log of a job: one JSON object a line, numbered without a gap. A reader finds its place by halving the file, since the numbers grow, and
 * then remembers where it is: nobody reads a log from its start for its last lines.
 */
import { closeSync, fstatSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { jsonLine } from '../canonical.ts';
import type { LogLine } from './progress.ts';

/** Lines of a job that are kept: further ones are dropped. */
const linesMax = 100_000;
/** Bytes that are read at a time; the longest line has 24,000. */
const pieceBytes = 64 * 1024;

export const logPath = (dataDir: string, jobId: string) => join(dataDir, 'logs', `${jobId}.jsonl`);

export interface JobLog {
  /** Stores a line and returns it with its number; null when the log or the disk is full. */
  write(line: Omit<LogLine, 'n'>): LogLine | null;
  close(): void;
}

/** Opens a job's log file to append behind its last line. */
export async function openLog(dataDir: string, jobId: string): Promise<JobLog> {
  mkdirSync(join(dataDir, 'logs'), { recursive: true });
  let n = await lastNumber(dataDir, jobId);
  const file = openSync(logPath(dataDir, jobId), 'a');
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

/**
 * A reader of a job's log: each call gives the next lines behind line `after`, at most `limit`; none at the present end. What a crash cut
 * off is left out. It looks first where line `behind` ends.
 */
export function logReader(dataDir: string, jobId: string, after: number, behind = after): (limit: number) => Promise<LogLine[]> {
  let n = after;
  let offset: number | null = null;
  return async (limit) => {
    const lines: LogLine[] = [];
    const file = await openIfThere(logPath(dataDir, jobId));
    try {
      if (file) offset ??= await offsetBehind(file, behind);
      while (file && offset !== null && lines.length < limit) {
        const piece = await readPiece(file, offset);
        const start: number = offset;
        for (const { line, end } of linesIn(piece)) {
          if (lines.length === limit) break;
          offset = start + end;
          if (!line || line.n <= n) continue;
          lines.push(line);
          n = line.n;
        }
        // What is left has no end yet, unless it is longer than a line can be.
        if (offset === start && piece.length < pieceBytes) break;
        if (offset === start) offset += piece.length;
      }
    } finally {
      await file?.close();
    }
    return lines;
  };
}

/** All lines of a job behind line `after`, in order. */
export async function* readLog(dataDir: string, jobId: string, after: number): AsyncGenerator<LogLine, undefined> {
  const next = logReader(dataDir, jobId, after);
  for (let lines = await next(1000); lines.length > 0; lines = await next(1000)) yield* lines;
}

async function lastNumber(dataDir: string, jobId: string): Promise<number> {
  const next = logReader(dataDir, jobId, 0, Number.POSITIVE_INFINITY);
  let last = 0;
  for (let lines = await next(1000); lines.length > 0; lines = await next(1000)) last = lines.at(-1)?.n ?? last;
  return last;
}

const openIfThere = (path: string): Promise<FileHandle | null> =>
  open(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
    return null;
  });

/** Where to read from for what is behind line `after`: at most a piece before it. */
async function offsetBehind(file: FileHandle, after: number): Promise<number> {
  let [low, high] = [0, (await file.stat()).size];
  while (after > 0 && high - low > pieceBytes) {
    const middle = Math.floor((low + high) / 2);
    const piece = await readPiece(file, middle);
    // The line that the middle is in begins before it.
    const from = piece.indexOf(lineFeed) + 1;
    const next = from > 0 ? linesIn(piece.subarray(from)).find(({ line }) => line) : undefined;
    if (next?.line && next.line.n <= after && middle + from + next.start < high) low = middle + from + next.start;
    else high = middle;
  }
  return low;
}

async function readPiece(file: FileHandle, offset: number): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(pieceBytes), 0, pieceBytes, offset);
  return buffer.subarray(0, bytesRead);
}

const lineFeed = 10;

/** The lines of a piece, null for one that is not whole; the last one only if its end is there, or nothing but its end is missing. */
function linesIn(piece: Buffer): { start: number; end: number; line: LogLine | null }[] {
  const lines: { start: number; end: number; line: LogLine | null }[] = [];
  let start = 0;
  for (let feed = piece.indexOf(lineFeed); feed >= 0; feed = piece.indexOf(lineFeed, start)) {
    lines.push({ start, end: feed + 1, line: parseLine(piece.toString('utf8', start, feed)) });
    start = feed + 1;
  }
  const rest = parseLine(piece.toString('utf8', start));
  if (rest) lines.push({ start, end: piece.length, line: rest });
  return lines;
}

function parseLine(text: string): LogLine | null {
  try {
    return JSON.parse(text) as LogLine;
  } catch {
    return null;
  }
}
