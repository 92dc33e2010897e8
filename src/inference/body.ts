/** Bodies of requests, within the host's bounds. */
import type { IncomingMessage } from 'node:http';
import type { Readable } from 'node:stream';
import { createUnzip } from 'node:zlib';
import { HttpError } from './httpError.ts';
import type { Holding } from './memory.ts';

/** A body that is larger grows into its memory as it arrives, whatever length it claims to have. */
const firstBytesMax = 2 ** 20;
const unpackedChunkBytes = 2 ** 16;

/**
 * The body, decompressed, in memory of the request. Throws a HttpError: 413 for more than `bytesMax`, 429 where the memory is used up, 415,
 * 400, 499 where the client goes before the end. A body is decompressed as it arrives, so that no more of it exists than was reserved.
 * Whoever refuses the request has to read the rest and throw it away, so that the client can read the answer (`refuseRequest.ts`).
 */
export async function readBody(req: IncomingMessage, bytesMax: number, holding: Holding): Promise<Buffer> {
  const encoding = req.headers['content-encoding'] ?? 'identity';
  if (!['identity', 'gzip', 'deflate'].includes(encoding)) {
    throw new HttpError(415, `Content-Encoding ${encoding} is not known here; gzip and deflate are.`);
  }
  const declared = Number(req.headers['content-length'] ?? 0);
  if (declared > bytesMax) throw tooLarge(bytesMax);
  const gone = new Promise<never>((_, reject) => {
    req.once('close', () => req.complete || reject(new HttpError(499, 'The client has gone.')));
  });
  if (encoding === 'identity') return Promise.race([gone, collect(req, declared, bytesMax, holding)]);
  const unpacked = req.pipe(createUnzip({ chunkSize: unpackedChunkBytes }));
  const broken = new Promise<never>((_, reject) => {
    unpacked.once('error', () => reject(new HttpError(400, `The body is not ${encoding}.`)));
  });
  try {
    return await Promise.race([gone, broken, collect(unpacked, declared, bytesMax, holding)]);
  } finally {
    req.unpipe(unpacked);
    unpacked.destroy();
  }
}

function collect(source: Readable, expected: number, bytesMax: number, holding: Holding): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    let taken: Buffer | null = null;
    let length = 0;
    const add = (piece: Buffer): void => {
      try {
        const needed = length + piece.length;
        if (needed > bytesMax) throw tooLarge(bytesMax);
        if (!taken || taken.length < needed) {
          const wanted = taken ? Math.max(needed, 2 * taken.length) : Math.max(needed, Math.min(expected, firstBytesMax));
          const larger = holding.take(Math.min(wanted, bytesMax));
          taken?.copy(larger, 0, 0, length);
          if (taken) holding.give(taken);
          taken = larger;
        }
        taken.set(piece, length);
        length = needed;
      } catch (error) {
        source.off('data', add);
        reject(error);
      }
    };
    source.on('data', add);
    source.once('end', () => resolve(taken ? taken.subarray(0, length) : Buffer.alloc(0)));
  });
}

const tooLarge = (bytesMax: number): HttpError => new HttpError(413, `A body can have ${bytesMax} bytes at most.`);
