/**
 * What each thread of an inference host loads or runs, in a file: when the runtime takes the process down, the file says which models did it.
 * A record is a model's key, padded with zeros; a write of it takes some microseconds and needs no disk to survive the process.
 */
import { existsSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';

/** A name of 100 characters, a slash and a number. */
const recordBytes = 128;
const pathIn = (folder: string): string => join(folder, 'running');
const nothing = Buffer.alloc(1);

/** A file for so many threads; gives its path. */
export function createRunningFile(folder: string, threads: number): string {
  writeFileSync(pathIn(folder), Buffer.alloc(threads * recordBytes));
  return pathIn(folder);
}

/** The record of thread `n`. */
export function openRunning(file: string, n: number): { begin(key: string): void; end(): void } {
  const fd = openSync(file, 'r+');
  return {
    begin(key) {
      const record = Buffer.alloc(recordBytes);
      record.write(key);
      writeSync(fd, record, 0, recordBytes, n * recordBytes);
    },
    end() {
      writeSync(fd, nothing, 0, 1, n * recordBytes);
    },
  };
}

/** The models that a dead host's threads were at, each once; none where it died before it had threads. */
export function readRunning(folder: string): string[] {
  const bytes = existsSync(pathIn(folder)) ? readFileSync(pathIn(folder)) : Buffer.alloc(0);
  const keys = Array.from({ length: bytes.length / recordBytes }, (_, n) => {
    const record = bytes.subarray(n * recordBytes, (n + 1) * recordBytes);
    return record.toString('utf8', 0, record.indexOf(0));
  });
  return [...new Set(keys.filter(Boolean))].sort();
}
