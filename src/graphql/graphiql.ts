import type { IncomingMessage, ServerResponse } from 'node:http';
import { extname } from 'node:path';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { gunzip } from 'node:zlib';
import { ApiError } from '../errors.ts';
import type { Packed } from './graphiql/pack.ts';

/** Monaco, GraphiQL's editor, makes style elements; nothing else is inline, and nothing comes from another host. */
const contentSecurityPolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "worker-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "font-src 'self' data:",
  // A WebSocket to the same host is `self` too (CSP 3).
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

const contentTypes: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};

/** Whether a browser asks for the page and not a program for data. */
export function wantsGraphiql(req: IncomingMessage): boolean {
  return req.method === 'GET' && /\btext\/html\b/.test(req.headers.accept ?? '');
}

/** The files, packed when they are first asked for and kept compressed (2.4 MB): a server that nobody opens in a browser holds none of them. */
let packing: Promise<Packed> | undefined;

function packed(): Promise<Packed> {
  packing ??= pack().catch((error: unknown) => {
    packing = undefined;
    throw error;
  });
  return packing;
}

/** GraphiQL, from our own files: the page at /graphql. */
export async function serveGraphiql(req: IncomingMessage, res: ServerResponse): Promise<void> {
  const { version, files } = await packed();
  res.appendHeader('Vary', 'Accept');
  res.setHeader('Content-Security-Policy', contentSecurityPolicy);
  await send(req, res, 'page.html', files.get('page.html') as Uint8Array, version, 'no-cache');
}

/** What the page loads, below /graphiql/<version>/. */
export async function serveGraphiqlFile(req: IncomingMessage, res: ServerResponse): Promise<void> {
  const { version, files } = await packed();
  const [, wanted, name = ''] = /^\/graphiql\/([^/]+)\/([^/?]+)/.exec(req.url ?? '') ?? [];
  const gzipped = wanted === version ? files.get(name) : undefined;
  if (!gzipped) throw new ApiError('NOT_FOUND', 'There is nothing at this path. GraphiQL is at /graphql.');
  await send(req, res, name, gzipped, version, 'public, max-age=31536000, immutable');
}

async function send(
  req: IncomingMessage,
  res: ServerResponse,
  name: string,
  gzipped: Uint8Array,
  version: string,
  cacheControl: string,
): Promise<void> {
  const etag = `W/"${version}"`;
  res.setHeader('Cache-Control', cacheControl);
  res.setHeader('ETag', etag);
  res.appendHeader('Vary', 'Accept-Encoding');
  if (req.headers['if-none-match'] === etag) {
    res.writeHead(304).end();
    return;
  }
  res.setHeader('Content-Type', contentTypes[extname(name)] as string);
  const zipped = /\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))/.test(String(req.headers['accept-encoding'] ?? ''));
  if (zipped) res.setHeader('Content-Encoding', 'gzip');
  const body = zipped ? gzipped : await promisify(gunzip)(gzipped);
  res.setHeader('Content-Length', body.byteLength);
  res.writeHead(200).end(body);
}

/** Reads and compresses the files in a thread of their own: 9 MB of strings end with it. */
function pack(): Promise<Packed> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL('./graphiql/pack.ts', import.meta.url));
    worker.once('message', resolve).once('error', reject);
  });
}
