import type { IncomingMessage } from 'node:http';
import { ApiError } from '../errors.ts';

const bytesMax = 2 * 1024 * 1024;

/**
 * The body of a request as text. TOO_LARGE beyond 2 MiB, by its Content-Length before the body; UNAVAILABLE when the client goes before its
 * end. Yoga would read it through four web streams, which takes as long as its parsing, validation and plugins.
 */
export function readDocumentBody(req: IncomingMessage): Promise<string> {
  const tooLarge = () => new ApiError('TOO_LARGE', `A body for GraphQL has ${bytesMax / 2 ** 20} MiB at most.`);
  return new Promise((resolve, reject) => {
    if (Number(req.headers['content-length']) > bytesMax) return reject(tooLarge());
    const pieces: Buffer[] = [];
    let bytes = 0;
    req.on('data', (piece: Buffer) => {
      bytes += piece.length;
      if (bytes <= bytesMax) pieces.push(piece);
      else reject(tooLarge());
    });
    req.once('end', () => resolve(Buffer.concat(pieces).toString()));
    req.once('close', () => {
      if (!req.readableEnded) reject(new ApiError('UNAVAILABLE', 'The client has gone.'));
    });
  });
}
