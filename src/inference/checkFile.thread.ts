/** A thread that reads a model file and says what is wrong with it, so that hashing 100 MB does not keep HTTP waiting. */
import { createHash } from 'node:crypto';
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { type Bytes, hasExternalData } from '../engine/externalData.ts';
import { serveTasks } from './taskThread.ts';

const pieceBytes = 1 << 20;
/** For one read where bytes are looked at: the fields of an ONNX file are small, or are passed over. */
const windowBytes = 1 << 16;

const tasks = {
  /** `sha256`: what the file is to have. Null where nothing is wrong. Throws where it cannot be read, and where it is not ONNX. */
  problemOf({ file, sha256: meant }: { file: string; sha256: string }): string | null {
    const fd = openSync(file, 'r');
    try {
      const sha256 = sha256Of(fd);
      if (sha256 !== meant) return `The file has the SHA-256 ${sha256}, not ${meant}: it is not the one that was meant.`;
      return hasExternalData(bytesOf(fd)) ? 'It takes data from other files. Save it as one file, without external data.' : null;
    } finally {
      closeSync(fd);
    }
  },
};
export type CheckTasks = typeof tasks;

/** In pieces: memory for the whole file, once touched, keeps the threads that allocate from doing so while it is given back. */
function sha256Of(fd: number): string {
  const hash = createHash('sha256');
  const piece = new Uint8Array(pieceBytes);
  for (let size = readSync(fd, piece, 0, pieceBytes, null); size > 0; size = readSync(fd, piece, 0, pieceBytes, null))
    hash.update(piece.subarray(0, size));
  return hash.digest('hex');
}

function bytesOf(fd: number): Bytes {
  const window = new Uint8Array(windowBytes);
  let [from, to] = [0, 0];
  return {
    length: fstatSync(fd).size,
    at(index) {
      if (index < from || index >= to) {
        from = index;
        to = from + readSync(fd, window, 0, windowBytes, index);
      }
      return index < to ? window[index - from] : undefined;
    },
  };
}

serveTasks(tasks);
