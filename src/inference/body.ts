/** Bodies of requests, within the host's bounds. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { promisify } from 'node:util';
import { unzip } from 'node:zlib';
import { busy, HttpError } from './httpError.ts';

/** A body that is larger grows into its memory as it arrives, whatever length it claims to have. */
const firstBytesMax = 2 ** 20;
const freeBytesMax = 32 * 2 ** 20;

/** The memory that bodies arrive in and wait in, in one piece each, bounded over all requests and used again; answers count until they are sent. */
export class BodyMemory {
  readonly #max: number;
  readonly #free: Buffer[] = [];
  /** Bytes that are taken. */
  used = 0;

  constructor(max: number) {
    this.#max = max;
  }

  /** At least so many bytes, at most twice as many. Throws a HttpError (429) where there are none left. */
  take(bytes: number): Buffer {
    const at = this.#free.findIndex(({ length }) => length >= bytes && length <= 2 * bytes);
    const length = this.#free[at]?.length ?? bytes;
    if (this.used + length > this.#max) throw busy('The host holds as many bytes of requests and answers as it may.', 1000);
    this.used += length;
    return this.#free.splice(at, at < 0 ? 0 : 1)[0] ?? Buffer.allocUnsafeSlow(bytes);
  }

  /** An answer of so many bytes is on its way. One whose client does not read keeps others out, instead of growing beside them. */
  sending(bytes: number, res: ServerResponse): void {
    this.used += bytes;
    res.once('close', () => {
      this.used -= bytes;
    });
  }

  give(memory: Buffer): void {
    this.used -= memory.length;
    this.#free.push(memory);
    for (let free = this.#free.reduce((sum, { length }) => sum + length, 0); free > freeBytesMax; ) {
      free -= (this.#free.shift() as Buffer).length;
    }
  }
}

export interface Body {
  bytes: Buffer;
  /** Gives the memory back; the bytes are another body's then. */
  release(): void;
}

/**
 * The body, decompressed. Throws a HttpError: 413 for more than `bytesMax`, 429 where the memory is used up, 415, 400. The rest of a body
 * that is refused is read and thrown away, so that the client gets to read the answer. 499 where the client goes before the end.
 */
export async function readBody(req: IncomingMessage, bytesMax: number, memory: BodyMemory): Promise<Body> {
  const encoding = req.headers['content-encoding'] ?? 'identity';
  if (!['identity', 'gzip', 'deflate'].includes(encoding)) {
    throw new HttpError(415, `Content-Encoding ${encoding} is not known here; gzip and deflate are.`);
  }
  const declared = Number(req.headers['content-length'] ?? 0);
  if (declared > bytesMax) throw tooLarge(bytesMax);
  const body = await arrived(req, declared, bytesMax, memory);
  if (encoding === 'identity') return body;
  try {
    return { bytes: await promisify(unzip)(body.bytes, { maxOutputLength: bytesMax }), release: () => {} };
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE'
      ? tooLarge(bytesMax)
      : new HttpError(400, `The body is not ${encoding}.`);
  } finally {
    body.release();
  }
}

function arrived(req: IncomingMessage, declared: number, bytesMax: number, memory: BodyMemory): Promise<Body> {
  return new Promise((resolve, reject) => {
    let taken: Buffer | null = null;
    let length = 0;
    let refused = false;
    const release = (): void => {
      if (taken) memory.give(taken);
      taken = null;
    };
    req.on('data', (piece: Buffer) => {
      if (refused) return;
      try {
        const needed = length + piece.length;
        if (needed > bytesMax) throw tooLarge(bytesMax);
        if (!taken || taken.length < needed) {
          const wanted = taken ? Math.max(needed, 2 * taken.length) : Math.max(needed, Math.min(declared, firstBytesMax));
          const larger = memory.take(Math.min(wanted, bytesMax));
          taken?.copy(larger, 0, 0, length);
          release();
          taken = larger;
        }
        taken.set(piece, length);
        length = needed;
      } catch (error) {
        refused = true;
        release();
        reject(error);
      }
    });
    req.on('end', () => resolve({ bytes: taken ? taken.subarray(0, length) : Buffer.alloc(0), release }));
    // Whoever waits for the body holds the model.
    const left = (): void => {
      if (req.readableEnded) return;
      release();
      reject(new HttpError(499, 'The client has gone.'));
    };
    if (req.destroyed) left();
    req.on('close', left);
  });
}

const tooLarge = (bytesMax: number): HttpError => new HttpError(413, `A body can have ${bytesMax} bytes at most.`);
