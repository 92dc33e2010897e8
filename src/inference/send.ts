/** How answers leave the host. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { promisify } from 'node:util';
import { deflate, gzip } from 'node:zlib';

/** Bodies below this are not worth compressing. */
const compressedBytesMin = 1024;

export const jsonType = { 'content-type': 'application/json' };
export const nosniff = { 'x-content-type-options': 'nosniff' };

export const bytesOf = (pieces: readonly Uint8Array[]): number => pieces.reduce((sum, piece) => sum + piece.length, 0);

/** Whether nobody gets the answer any more, or all of it has been handed to the system. */
export const isOver = ({ closed, destroyed, req }: ServerResponse): boolean => closed || destroyed || req.socket.destroyed;

/** Calls `done` once, as soon as it is over. An answer that waits behind another on its connection is not told that this has closed. */
export function whenOver(res: ServerResponse, done: () => void): void {
  if (isOver(res)) {
    done();
    return;
  }
  const { socket } = res.req;
  let told = false;
  const over = (): void => {
    res.off('close', over);
    socket.off('close', over);
    // Node closes the answer within the `close` of its connection, whose listeners are all called nevertheless.
    if (!told) done();
    told = true;
  };
  res.on('close', over);
  socket.on('close', over);
}

/** As the client asks for, at the level that costs least. */
export async function compressed(
  req: IncomingMessage,
  pieces: Uint8Array[],
): Promise<{ pieces: Uint8Array[]; headers: Record<string, string> }> {
  const encoding = bytesOf(pieces) < compressedBytesMin ? undefined : encodingFor(String(req.headers['accept-encoding'] ?? ''));
  if (!encoding) return { pieces, headers: {} };
  const packed = await promisify(encoding === 'gzip' ? gzip : deflate)(Buffer.concat(pieces), { level: 1 });
  return { pieces: [packed], headers: { 'content-encoding': encoding } };
}

/** The first of ours that the client takes (RFC 9110, section 12.5.3): one with the weight 0 is one that it does not take. */
function encodingFor(accepted: string): 'gzip' | 'deflate' | undefined {
  const weights = new Map<string, number>();
  for (const one of accepted.toLowerCase().split(',')) {
    const [name = '', ...parameters] = one.split(';').map((part) => part.trim());
    const weight = parameters.find((parameter) => parameter.startsWith('q='))?.slice(2) ?? 1;
    weights.set(name, Number(weight));
  }
  return (['gzip', 'deflate'] as const).find((name) => (weights.get(name) ?? weights.get('*') ?? 0) > 0);
}

export function answerJson(res: ServerResponse, status: number, value: unknown, headers: Record<string, string> = {}): void {
  send(res, status, { ...jsonType, ...headers }, [Buffer.from(JSON.stringify(value))]);
}

export function send(res: ServerResponse, status: number, headers: Record<string, string>, pieces: readonly Uint8Array[]): void {
  res.writeHead(status, { ...headers, ...nosniff, 'content-length': String(bytesOf(pieces)) });
  res.cork();
  for (const piece of pieces) res.write(piece);
  res.end();
}
