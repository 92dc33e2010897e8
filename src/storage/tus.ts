/**
 * `/uploads` over HTTP: the resumable protocol tus 1.0 (https://tus.io/protocols/resumable-upload), served by @tus/server over our rows
 * and files, and beside it one plain request for people with curl:
 *
 *   POST /uploads?filename=digits.zip   the body is the file       → 201 {uploadId, sha256, sizeBytes}
 *   POST /uploads                       tus: create, bytes with it or not
 *   HEAD, PATCH, DELETE /uploads/<id>   tus: offset, append, give up; only for whoever created it
 *   GET /uploads, GET /uploads/<id>     what the caller has open, and the hash of what is complete
 */
import { randomUUIDv7 } from 'node:crypto';
import { type FileHandle, open, rm } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Readable } from 'node:stream';
import { DataStore, Server, Upload as TusUpload } from '@tus/server';
import type { User } from '../accounts/tables.ts';
import { allows, forbidden, userOf, type Viewer } from '../accounts/viewer.ts';
import type { Config } from '../config.ts';
import { passingError } from '../db.ts';
import { ApiError } from '../errors.ts';
import type { Log } from '../log.ts';
import type { StorageServices } from './blobs.ts';
import { requireDisk } from './disk.ts';
import { publicAddress } from './links.ts';
import type { Upload } from './tables.ts';
import {
  completeUpload,
  findUpload,
  hashOfUpload,
  listUploads,
  offsetOf,
  openUpload,
  removeUpload,
  requireUpload,
  stagingPath,
  touchUpload,
  unusedMs,
} from './uploads.ts';

interface Services extends StorageServices {
  config: Config;
}

export interface Uploads {
  handle(req: IncomingMessage, res: ServerResponse, caller: { viewer: Viewer | null }): Promise<void>;
  /** Gives up what is being hashed (it is taken up again when its client asks), and waits for what is being answered. */
  stop(): Promise<void>;
}

/** After so many bytes a long request looks at the disk again, and shows that its upload is in use. */
const checkBytes = 64 * 1024 * 1024;

/** A request on its way through @tus/server. */
interface Call {
  user: User;
  /** A plain POST without a length: the upload is as large as the cap until its end is known. */
  sizeIsUnknown: boolean;
  /** The upload that it has created. */
  created: string | null;
}

export function createUploads(services: Services, log: Log): Uploads {
  const { config, db } = services;
  const calls = new WeakMap<object, Call>();
  const completing = new Map<string, Promise<Upload>>();
  const answering = new Set<Promise<void>>();
  const stopping = new AbortController();

  const tus = new Server({
    path: '/uploads',
    datastore: new StagingStore(services),
    maxSize: config.uploadBytesMax,
    // A client that comes back on a new connection ends the request that it has lost at once.
    lockDrainTimeout: 1,
    // http.ts has refused foreign origins already.
    allowedOrigins: () => true,
    generateUrl: (_req, { id }) => publicAddress(config, `/uploads/${id}`),
    namingFunction: () => randomUUIDv7(),
    async onUploadCreate(req, { id, size = 0, metadata }) {
      const call = calls.get(req) as Call;
      await requireDisk(services, call.sizeIsUnknown ? 0 : size);
      openUpload(db, { id, userId: call.user.id, fileName: metadata?.filename ?? '', sizeBytes: size });
      call.created = id;
      return {};
    },
    onResponseError(_req, error) {
      throw error;
    },
  });

  /** Completes an upload whose bytes are all there; whoever asks meanwhile waits for the same work. */
  async function settle(row: Upload): Promise<Upload> {
    if (row.state !== 'OPEN' || (await offsetOf(config.dataDir, row)) < row.sizeBytes) return row;
    const work = completing.get(row.id) ?? completeUpload(services, row, stopping.signal).finally(() => completing.delete(row.id));
    completing.set(row.id, work);
    return work;
  }

  async function describe(row: Upload) {
    const { id: uploadId, fileName, sizeBytes, state, expiresAt } = row;
    const offset = await offsetOf(config.dataDir, row);
    return {
      uploadId,
      fileName,
      sizeBytes,
      offset,
      state,
      sha256: hashOfUpload(db, uploadId),
      expiresAt: new Date(expiresAt).toISOString(),
    };
  }

  async function answer(req: IncomingMessage, viewer: Viewer, call: Call): Promise<Response> {
    const { user } = viewer;
    const id = idOf(req);
    const row = id === null ? null : await settle(requireUpload(db, user.id, id));
    if (req.method === 'GET') {
      return Response.json(row ? await describe(row) : { uploads: await Promise.all(listUploads(db, user.id).map(describe)) });
    }
    const request = tusRequest(req, config, call);
    calls.set(request, call);
    const response = await tus.handleWeb(request);
    if (response.status >= 400) throw new ApiError('INVALID', (await response.text()).trim());
    const writtenTo = call.created ?? (methodOf(req) === 'PATCH' ? id : null);
    if (writtenTo === null) return response;

    // The body may have taken long: who has lost the right meanwhile has uploaded nothing.
    requireStill(viewer);
    const written = requireUpload(db, user.id, writtenTo);
    const settled = await settle(call.sizeIsUnknown ? { ...written, sizeBytes: await offsetOf(config.dataDir, written) } : written);
    if (settled.state !== 'COMPLETE' || call.created === null) return response;
    const body = { uploadId: settled.id, sha256: hashOfUpload(db, settled.id), sizeBytes: settled.sizeBytes };
    return Response.json(body, { status: response.status, headers: without(response.headers, 'content-type', 'content-length') });
  }

  /** An access token that expired meanwhile is no reason: its session continues. */
  function requireStill(viewer: Viewer): void {
    const user = userOf(db, viewer.by === 'SESSION' ? { familyId: viewer.familyId } : { apiKeyId: viewer.key.id });
    if (!user)
      throw new ApiError('UNAUTHENTICATED', 'The session has ended, or the API key works no more. Log in again, then upload again.');
    requireUploader({ ...viewer, user });
  }

  async function handle(req: IncomingMessage, res: ServerResponse, viewer: Viewer): Promise<void> {
    const call: Call = { user: viewer.user, sizeIsUnknown: false, created: null };
    // Once the body is here, silence is ours: hashing a large file takes longer than a client may be silent.
    req.once('end', () => req.socket.setTimeout(0));
    if (req.method !== 'POST' && req.method !== 'PATCH') req.resume();
    try {
      const response = await answer(req, viewer, call);
      res.writeHead(response.status, { 'Cache-Control': 'no-store', ...Object.fromEntries(response.headers) });
      res.end(await response.text());
    } catch (error) {
      if (call.created !== null) await discard(call.created);
      throw asApiError(error);
    }
  }

  /** An upload whose id no client got, so that nobody can resume it. On a full disk its row has to stay until it expires. */
  async function discard(id: string): Promise<void> {
    await rm(stagingPath(config.dataDir, id), { force: true });
    await removeUpload(services, id).catch((error: unknown) => log.warn({ err: error, uploadId: id }, 'a broken upload was not forgotten'));
  }

  return {
    async handle(req, res, { viewer }) {
      const work = handle(req, res, requireUploader(viewer));
      answering.add(work);
      await work.finally(() => answering.delete(work));
    },
    async stop() {
      stopping.abort();
      await Promise.allSettled(answering);
    },
  };
}

function requireUploader(viewer: Viewer | null): Viewer {
  if (!viewer) throw new ApiError('UNAUTHENTICATED', 'Uploads need a login: send `Authorization: Bearer <access token or API key>`.');
  if (!allows(viewer, 'UPLOAD')) throw forbidden(viewer, 'UPLOAD');
  return viewer;
}

/** The id in the path; null for the collection. */
function idOf(req: IncomingMessage): string | null {
  return addressOf(req).pathname.slice('/uploads/'.length) || null;
}

const addressOf = (req: IncomingMessage): URL => new URL(req.url ?? '', 'http://localhost');

/** A client that cannot send PATCH or DELETE says it in a header, which the answer to OPTIONS announces (tus 1.0). */
function methodOf({ method = '', headers }: IncomingMessage): string {
  const override = String(headers['x-http-method-override'] ?? '').toUpperCase();
  return method === 'POST' && ['PATCH', 'DELETE'].includes(override) ? override : method;
}

/** The request as @tus/server takes it: a plain POST becomes a creation that carries the whole file. */
function tusRequest(req: IncomingMessage, { uploadBytesMax }: Config, call: Call): Request {
  const method = methodOf(req);
  const headers = new Headers();
  for (const [name, value] of Object.entries(req.headers)) headers.set(name, String(value));
  if (method === 'POST' && headers.get('content-type')?.startsWith('multipart/')) {
    const command = 'curl -X POST -T digits.zip -H "Authorization: Bearer $WHETSTONE_TOKEN" "$WHETSTONE_URL/uploads?filename=digits.zip"';
    throw new ApiError(
      'MEDIA_TYPE',
      `The body is a form (curl -F), whose envelope would become part of the file. Send the file as it is: ${command}`,
    );
  }
  if (method === 'POST' && !headers.has('tus-resumable')) {
    const fileName = addressOf(req).searchParams.get('filename');
    if (!fileName) {
      throw new ApiError('INVALID', 'The name of the file is missing: POST /uploads?filename=digits.zip, or the headers of tus 1.0.');
    }
    const length = headers.get('content-length');
    call.sizeIsUnknown = length === null;
    headers.set('tus-resumable', '1.0.0');
    headers.set('upload-length', length ?? String(uploadBytesMax));
    headers.set('upload-metadata', `filename ${Buffer.from(fileName).toString('base64')}`);
    headers.set('content-type', 'application/offset+octet-stream');
  }
  const body = method === 'POST' || method === 'PATCH' ? streamOf(req) : null;
  return new Request(addressOf(req), { method, headers, body, duplex: 'half' } as RequestInit);
}

/**
 * Its type lacks `from`. `Readable.toWeb` copies every chunk: 1.7 s more of garbage collection for a gigabyte. A request that is
 * refused in its middle must not be destroyed: its client would see a broken connection in place of the answer.
 */
const streamOf = (req: IncomingMessage) =>
  (ReadableStream as unknown as { from(source: AsyncIterable<Buffer>): ReadableStream }).from(req.iterator({ destroyOnReturn: false }));

function without(headers: Headers, ...names: string[]): Headers {
  const rest = new Headers(headers);
  for (const name of names) rest.delete(name);
  return rest;
}

/** What @tus/server, the file system and the database throw, as the error that a client gets. */
function asApiError(error: unknown): unknown {
  const passing = passingError(error);
  if (passing) return passing;
  const { status_code: status, body } = error as { status_code?: number; body?: string };
  if (status === undefined || status === 500) return error;
  const known: Record<number, 'NOT_FOUND' | 'CONFLICT' | 'TOO_LARGE'> = {
    404: 'NOT_FOUND',
    409: 'CONFLICT',
    410: 'NOT_FOUND',
    413: 'TOO_LARGE',
  };
  return new ApiError(known[status] ?? 'INVALID', String(body).trim());
}

/** Where @tus/server keeps offsets and bytes: the rows of `upload` and the files of the staging folder. */
class StagingStore extends DataStore {
  readonly #services: Services;

  constructor(services: Services) {
    super();
    this.#services = services;
    this.extensions = ['creation', 'creation-with-upload', 'expiration', 'termination'];
  }

  override getExpiration(): number {
    return unusedMs;
  }

  override async getUpload(id: string): Promise<TusUpload> {
    const { config, db } = this.#services;
    const row = findUpload(db, id);
    return new TusUpload({
      id,
      size: row.sizeBytes,
      offset: await offsetOf(config.dataDir, row),
      metadata: { filename: row.fileName },
      // Expiry counts from the last use.
      creation_date: new Date(row.expiresAt - unusedMs).toISOString(),
    });
  }

  /** Appends, and returns the new offset. When it throws the file ends with the last byte that was written: the offset to continue from. */
  override async write(stream: Readable, id: string, offset: number): Promise<number> {
    const { config, db } = this.#services;
    let end = offset;
    let checkAt = offset;
    let file: FileHandle | undefined;
    try {
      for await (const chunk of stream as AsyncIterable<Buffer>) {
        if (end >= checkAt) {
          await requireDisk(this.#services, 0);
          touchUpload(db, id);
          checkAt = end + checkBytes;
        }
        // Opened with the first byte: a complete upload has no file here any more, and is sent none.
        file ??= await open(stagingPath(config.dataDir, id), 'a', 0o600);
        await file.appendFile(chunk);
        end += chunk.length;
      }
    } finally {
      // Closed before the lock is released, so that no late write can follow the next request's.
      await file?.close();
    }
    return end;
  }

  override async remove(id: string): Promise<void> {
    const removed = await removeUpload(this.#services, id);
    if (!removed) throw new ApiError('IN_USE', 'The upload has been used: it cannot be deleted any more.');
  }
}
