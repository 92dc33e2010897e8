/** Bodies of requests, within the host's bounds. */
import type { IncomingMessage } from 'node:http';
import { promisify } from 'node:util';
import { unzip } from 'node:zlib';
import { busy, HttpError } from './httpError.ts';

/** Bytes of the bodies that arrive or wait for an answer, over all requests. */
export interface Budget {
  used: number;
  readonly max: number;
}

export interface Body {
  pieces: Uint8Array[];
  /** Gives its bytes back to the budget. */
  release(): void;
}

/**
 * The body, decompressed. Throws a HttpError: 413 for more than `bytesMax`, 429 where the budget is used up, 415, 400. The rest of a body
 * that is refused is read and thrown away, so that the client gets to read the answer. Never settles where the client goes before the end.
 */
export async function readBody(req: IncomingMessage, bytesMax: number, budget: Budget): Promise<Body> {
  const encoding = req.headers['content-encoding'] ?? 'identity';
  if (!['identity', 'gzip', 'deflate'].includes(encoding)) {
    throw new HttpError(415, `Content-Encoding ${encoding} is not known here; gzip and deflate are.`);
  }
  let held = 0;
  const hold = (bytes: number): void => {
    held += bytes;
    budget.used += bytes;
  };
  const body = { pieces: [] as Uint8Array[], release: () => hold(-held) };
  const tooLarge = () => new HttpError(413, `A body can have ${bytesMax} bytes at most.`);
  if (Number(req.headers['content-length'] ?? 0) > bytesMax) throw tooLarge();
  await new Promise<void>((resolve, reject) => {
    let refused = false;
    const refuse = (error: HttpError): void => {
      refused = true;
      body.pieces.length = 0;
      body.release();
      reject(error);
    };
    req.on('data', (piece: Buffer) => {
      if (refused) return;
      hold(piece.length);
      if (held > bytesMax) return refuse(tooLarge());
      if (budget.used > budget.max) return refuse(busy('The host holds as many bytes of requests as it may.', 1000));
      body.pieces.push(piece);
    });
    req.on('end', resolve);
    req.on('close', () => {
      if (!req.complete && !refused) body.release();
    });
  });
  if (encoding === 'identity') return body;
  try {
    body.pieces = [await promisify(unzip)(Buffer.concat(body.pieces), { maxOutputLength: bytesMax })];
  } catch (error) {
    body.release();
    throw (error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE'
      ? tooLarge()
      : new HttpError(400, `The body is not ${encoding}.`);
  }
  hold((body.pieces[0] as Uint8Array).length - held);
  return body;
}
