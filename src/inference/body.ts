/** Bodies of requests, within the host's bounds. */
import type { IncomingMessage } from 'node:http';
import type { Readable } from 'node:stream';
import { createUnzip } from 'node:zlib';
import { HttpError } from './httpError.ts';
import type { Holding } from './memory.ts';
import { gapBefore } from './staging.ts';

/** Memory for a body before it arrives, whatever length it claims to have. */
const firstBytesMax = 2 ** 20;
/** Once that is full it gets what it claims to need, up to so many times what has arrived: few bytes are copied, and nobody gets much for a claim. */
const claimFactor = 8;
const unpackedChunkBytes = 2 ** 16;

/** JSON at the start of a body, with binary tensors behind it. */
export interface Head {
  bytes: number;
  /** Called once, when it is there. What it throws refuses the request. */
  arrived(json: Buffer): void;
}

/**
 * The body, decompressed, in memory of the request: what is behind its head begins at a multiple of 64. Throws a HttpError: 413 for more than
 * `bytesMax`, 429 where the memory is used up, 415, 400, 499 where the client goes before the end. A body is decompressed as it arrives, so
 * that no more of it exists than was reserved. Whoever refuses the request has to read the rest and throw it away, so that the client can
 * read the answer (`refuseRequest.ts`).
 */
export async function readBody(req: IncomingMessage, bytesMax: number, holding: Holding, head?: Head): Promise<Buffer> {
  const encoding = req.headers['content-encoding'] ?? 'identity';
  if (!['identity', 'gzip', 'deflate'].includes(encoding)) {
    throw new HttpError(415, `Content-Encoding ${encoding} is not known here; gzip and deflate are.`);
  }
  const declared = Number(req.headers['content-length'] ?? 0);
  if (declared > bytesMax) throw tooLarge(bytesMax);
  const gone = new Promise<never>((_, reject) => {
    req.once('close', () => req.complete || reject(new HttpError(499, 'The client has gone.')));
  });
  if (encoding === 'identity') return Promise.race([gone, collect(req, declared, bytesMax, holding, head)]);
  const unpacked = req.pipe(createUnzip({ chunkSize: unpackedChunkBytes }));
  const broken = new Promise<never>((_, reject) => {
    unpacked.once('error', () => reject(new HttpError(400, `The body is not ${encoding}.`)));
  });
  try {
    return await Promise.race([gone, broken, collect(unpacked, declared, bytesMax, holding, head)]);
  } finally {
    req.unpipe(unpacked);
    unpacked.destroy();
  }
}

function collect(source: Readable, declared: number, bytesMax: number, holding: Holding, head?: Head): Promise<Buffer> {
  const gap = head ? gapBefore(head.bytes) : 0;
  return new Promise((resolve, reject) => {
    let coming = head;
    let taken: Buffer | null = null;
    let end = gap;
    const add = (piece: Buffer): void => {
      try {
        const needed = end + piece.length;
        if (needed - gap > bytesMax) throw tooLarge(bytesMax);
        if (!taken || taken.length < needed) {
          // A packed body becomes larger than its declared length.
          const grown = needed <= gap + declared ? Math.min(gap + declared, claimFactor * end) : 2 * end;
          const wanted = taken ? grown : gap + Math.min(declared, firstBytesMax);
          const larger = holding.take(Math.max(needed, Math.min(wanted, gap + bytesMax)));
          taken?.copy(larger, 0, 0, end);
          if (taken) holding.give(taken);
          taken = larger;
        }
        taken.set(piece, end);
        end = needed;
        if (!coming || end < gap + coming.bytes) return;
        const { bytes, arrived } = coming;
        coming = undefined;
        arrived(taken.subarray(gap, gap + bytes));
      } catch (error) {
        source.off('data', add);
        reject(error);
      }
    };
    source.on('data', add);
    source.once('end', () => resolve(taken ? taken.subarray(gap, end) : Buffer.alloc(0)));
  });
}

const tooLarge = (bytesMax: number): HttpError => new HttpError(413, `A body can have ${bytesMax} bytes at most.`);
