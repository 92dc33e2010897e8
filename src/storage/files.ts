import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { pipeline } from 'node:stream/promises';
import { eq } from 'drizzle-orm';
import { notFound } from '../errors.ts';
import { blobPath, type StorageServices } from './blobs.ts';
import { checkLink } from './links.ts';
import { artifact } from './tables.ts';

/**
 * `GET /files/<artifact>` and `GET /files/<artifact>/<offset>-<bytes>` behind a link of `links.ts`. What users uploaded must never act as
 * a page of this origin: files are attachments of no type, thumbnails are images that this server made, and both are sandboxed.
 */
export async function serveFile(services: StorageServices & { linkKey: Buffer }, req: IncomingMessage, res: ServerResponse): Promise<void> {
  const url = new URL(req.url ?? '', 'http://localhost');
  const leftMs = checkLink(services, url);
  const [, id = '', first, bytes] = /^\/files\/([^/]+)(?:\/(\d+)-(\d+))?$/.exec(url.pathname) ?? [];
  const found = services.db.select().from(artifact).where(eq(artifact.id, id)).get() ?? notFound('file');
  const path = blobPath(services.config.dataDir, found.sha256);
  const { size } = await stat(path);
  res.setHeader('Content-Security-Policy', "default-src 'none'; frame-ancestors 'none'; sandbox");
  res.setHeader('Cache-Control', `private, max-age=${Math.floor(leftMs / 1000)}, immutable`);
  if (first === undefined) {
    res.setHeader('Content-Type', 'application/octet-stream');
    res.setHeader('Content-Disposition', attachment(found.name));
    await sendRange(req, res, path, { start: 0, size }, `"${found.sha256}"`);
  } else {
    const part = { start: Number(first), size: Number(bytes) };
    if (found.kind !== 'THUMBNAILS' || part.size === 0 || part.start + part.size > size) notFound('thumbnail');
    res.setHeader('Content-Type', 'image/webp');
    await sendRange(req, res, path, part, `"${found.sha256}-${first}-${bytes}"`);
  }
}

/** The header Content-Disposition with a name for every client (RFC 6266): in ASCII, and as it is. */
export function attachment(name: string): string {
  const ascii = name.replace(/[^\w.-]/g, '_');
  const encoded = encodeURIComponent(name.toWellFormed()).replace(/['()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
  return `attachment; filename="${ascii}"; filename*=UTF-8''${encoded}`;
}

/** Answers with a part of a file as the whole representation: conditional requests and single ranges of RFC 9110. */
async function sendRange(
  req: IncomingMessage,
  res: ServerResponse,
  path: string,
  part: { start: number; size: number },
  etag: string,
): Promise<void> {
  res.setHeader('ETag', etag);
  res.setHeader('Accept-Ranges', 'bytes');
  if (hasVersion(req, etag)) {
    res.writeHead(304).end();
    return;
  }
  const condition = req.headers['if-range'];
  const range = condition === undefined || condition === etag ? rangeOf(req.headers.range, part.size) : null;
  if (range === 'unsatisfiable') {
    res.writeHead(416, { 'Content-Range': `bytes */${part.size}` }).end();
    return;
  }
  const { start, end } = range ?? { start: 0, end: part.size - 1 };
  if (range) res.setHeader('Content-Range', `bytes ${start}-${end}/${part.size}`);
  res.writeHead(range ? 206 : 200, { 'Content-Length': end - start + 1 });
  if (req.method === 'HEAD' || part.size === 0) {
    res.end();
    return;
  }
  // The pipeline waits for slow readers, and closes the file when they go away.
  await pipeline(createReadStream(path, { start: part.start + start, end: part.start + end }), res).catch(
    (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ERR_STREAM_PREMATURE_CLOSE') throw error;
    },
  );
}

/** Whether the client has what this tag stands for, by If-None-Match: it is 304. */
export const hasVersion = (req: IncomingMessage, etag: string): boolean =>
  (req.headers['if-none-match'] ?? '').split(',').some((tag) => [etag, '*'].includes(tag.trim().replace(/^W\//, '')));

/** First and last byte of a single range; null for none, for several, and for what is not a range of bytes: the whole is sent then. */
export function rangeOf(header: string | undefined, size: number): { start: number; end: number } | 'unsatisfiable' | null {
  const [, first, last] = /^bytes=(\d*)-(\d*)$/.exec(header ?? '') ?? [];
  if (first === undefined || last === undefined || first + last === '') return null;
  const range =
    first === ''
      ? { start: Math.max(0, size - Number(last)), end: size - 1 }
      : { start: Number(first), end: last === '' ? size - 1 : Math.min(Number(last), size - 1) };
  if (first !== '' && last !== '' && Number(last) < Number(first)) return null;
  return range.start > range.end ? 'unsatisfiable' : range;
}
