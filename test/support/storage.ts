import { createHash, randomUUIDv7 } from 'node:crypto';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import Sqlite from 'better-sqlite3';
import { drizzle } from 'drizzle-orm/better-sqlite3';
import type { Actor } from '../../src/accounts/audit.ts';
import { user } from '../../src/accounts/tables.ts';
import { type Config, readConfig } from '../../src/config.ts';
import { type Db, openDatabase } from '../../src/db.ts';
import { withFolder } from './server.ts';

export const sha256 = (bytes: string | Buffer): string => createHash('sha256').update(bytes).digest('hex');

/** Bytes that no other call with another seed gives, the same in each run. */
export function bytesOf(seed: string, size: number): Buffer {
  const block = createHash('sha512').update(seed).digest();
  const bytes = Buffer.alloc(size, block);
  for (let at = 0; at + 64 <= size; at += 64 * 1024) createHash('sha512').update(`${seed}${at}`).digest().copy(bytes, at);
  return bytes;
}

export interface Reply {
  status: number;
  headers: IncomingMessage['headers'];
  text: string;
  // biome-ignore lint/suspicious/noExplicitAny: what the server answers has the shape that the test expects.
  json: any;
}

export interface Sending {
  method: string;
  address: string;
  token?: string;
  headers?: Record<string, string>;
  /** Written one after the other; a function in between is awaited. Without a Content-Length header the body is chunked. */
  body?: (Buffer | string | (() => void | Promise<void>))[];
}

/** One request with the headers as they are given, which `fetch` would not send. Rejects when the connection breaks. */
export function send({ method, address, token, headers = {}, body = [] }: Sending): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const authorization = token ? { authorization: `Bearer ${token}` } : {};
    const outgoing = httpRequest(address, { method, headers: { ...authorization, ...headers }, agent: false });
    outgoing.on('error', reject);
    outgoing.on('response', async (incoming) => {
      try {
        const answer = await text(incoming);
        const isJson = incoming.headers['content-type']?.includes('json') && answer !== '';
        resolve({
          status: incoming.statusCode ?? 0,
          headers: incoming.headers,
          text: answer,
          json: isJson ? JSON.parse(answer) : undefined,
        });
      } catch (error) {
        reject(error);
      }
    });
    const write = async () => {
      for (const part of body) {
        if (typeof part === 'function') await part();
        else if (!outgoing.destroyed) await new Promise<void>((done) => outgoing.write(part, () => done()));
      }
      outgoing.end();
    };
    write().catch((error) => {
      outgoing.destroy(error);
      reject(error);
    });
  });
}

/** A request of tus 1.0. */
export function tus(
  method: string,
  address: string,
  token: string,
  headers: Record<string, string> = {},
  body: Sending['body'] = [],
): Promise<Reply> {
  return send({ method, address, token, headers: { 'tus-resumable': '1.0.0', ...headers }, body });
}

export const named = (fileName: string): string => `filename ${Buffer.from(fileName).toString('base64')}`;

/** Creates an upload over tus and returns its address and id. */
export async function create(
  url: string,
  token: string,
  sizeBytes: number,
  fileName = 'digits.zip',
): Promise<{ address: string; id: string }> {
  const reply = await tus('POST', `${url}/uploads`, token, { 'upload-length': String(sizeBytes), 'upload-metadata': named(fileName) });
  if (reply.status !== 201) throw new Error(`${reply.status} ${reply.text}`);
  const address = new URL(String(reply.headers.location), url);
  return { address: address.href, id: address.pathname.split('/').at(-1) as string };
}

/** Appends to an upload; without `announced` the body is chunked. */
export function append(address: string, token: string, offset: number, body: Sending['body'], announced?: number): Promise<Reply> {
  const length: Record<string, string> = announced === undefined ? {} : { 'content-length': String(announced) };
  return tus(
    'PATCH',
    address,
    token,
    { 'upload-offset': String(offset), 'content-type': 'application/offset+octet-stream', ...length },
    body,
  );
}

/** The plain request that the README shows. */
export function post(url: string, token: string, fileName: string, bytes: Buffer | string): Promise<Reply> {
  const headers = { 'content-length': String(Buffer.byteLength(bytes)) };
  return send({ method: 'POST', address: `${url}/uploads?filename=${encodeURIComponent(fileName)}`, token, headers, body: [bytes] });
}

export const stagingOf = (dataDir: string): string[] => readdirSync(join(dataDir, 'uploads')).sort();
export const blobOf = (dataDir: string, hash: string): string => join(dataDir, 'blobs', hash.slice(0, 2), hash);
export const sizeOf = (path: string): number => (existsSync(path) ? statSync(path).size : 0);

/** Every blob on the disk. */
export function blobsOf(dataDir: string): string[] {
  const folder = join(dataDir, 'blobs');
  return existsSync(folder)
    ? readdirSync(folder, { recursive: true, withFileTypes: true }).flatMap((e) => (e.isFile() ? [e.name] : []))
    : [];
}

/** Runs `use` with a connection of its own to the database of a running server. */
export async function withRows<T>(dataDir: string, use: (db: Db) => T | Promise<T>): Promise<T> {
  const client = new Sqlite(join(dataDir, 'whetstone.db'));
  client.pragma('foreign_keys = ON');
  try {
    return await use(drizzle(client));
  } finally {
    client.close();
  }
}

export interface Storage {
  config: Config;
  db: Db;
  linkKey: Buffer;
  /** A user, and another one. */
  actor: Actor & { actorId: string };
  stranger: Actor & { actorId: string };
}

/** Runs `use` with a data folder and its database, without a server. */
export async function withStorage<T>(use: (storage: Storage) => Promise<T>, env: Record<string, string> = {}): Promise<T> {
  return withFolder(async (dataDir) => {
    const { db, close } = openDatabase(dataDir);
    const person = (name: string) => {
      const actorId = randomUUIDv7();
      db.insert(user).values({ id: actorId, name, passwordHash: '', role: 'ENGINEER', createdAt: 0 }).run();
      return { actorId, requestId: null };
    };
    try {
      const config = readConfig({ WHETSTONE_DATA_DIR: dataDir, ...env });
      return await use({ config, db, linkKey: Buffer.alloc(32, 1), actor: person('ann'), stranger: person('bob') });
    } finally {
      close();
    }
  });
}

/** Waits until something is so; what it waits for must come, or the test's own limit ends it. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 5));
}
