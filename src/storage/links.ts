/**
 * Short-lived links to files. Whoever has a link may read that one file (or one thumbnail) without a token, so that a browser or curl can
 * follow it. It ends when it expires, or with the session or the API key that asked for it. The signature is HMAC-SHA-256 over path, expiry and
 * whose it is.
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { writePrivateFile } from '../accounts/tokens.ts';
import { type Access, userOf } from '../accounts/viewer.ts';
import type { Config } from '../config.ts';
import type { Db } from '../db.ts';
import { ApiError } from '../errors.ts';
import type { Artifact } from './tables.ts';

/**
 * A link is valid for one to two of these: expiries lie on a grid, so that the same thumbnail keeps its address, and a browser its
 * copy, for a while.
 */
const gridMs = 10 * 60_000;

/** What a link is made with, and for whom. */
export interface LinkContext {
  config: Pick<Config, 'publicUrl'>;
  linkKey: Buffer;
  viewer: Access | null;
}

/** The data folder's own key, made at first use, readable by its owner only. */
export function readLinkKey(dataDir: string): Buffer {
  const path = join(dataDir, 'link-key');
  if (!existsSync(path)) writePrivateFile(path, randomBytes(32).toString('hex'));
  const key = Buffer.from(readFileSync(path, 'utf8'), 'hex');
  if (key.length !== 32) throw new Error('The file link-key in the data folder is damaged: delete it, and a new one is made.');
  return key;
}

/** Where a path of this server is reached: absolute behind WHETSTONE_PUBLIC_URL, otherwise for the client to resolve. */
export function publicAddress({ publicUrl }: Pick<Config, 'publicUrl'>, path: string): string {
  return `${publicUrl?.replace(/\/+$/, '') ?? ''}${path}`;
}

/** A link that downloads the artifact. */
export function downloadUrl(context: LinkContext, { id }: Pick<Artifact, 'id'>): string {
  return signedUrl(context, `/files/${id}`);
}

/** A link to one WebP image of `sizeBytes` at `offset` in a THUMBNAILS artifact, for `<img>`. */
export function thumbnailUrl(context: LinkContext, { id }: Pick<Artifact, 'id'>, offset: number, sizeBytes: number): string {
  return signedUrl(context, `/files/${id}/${offset}-${sizeBytes}`);
}

/** A link to a path of this server, for whoever serves it to check with `checkLink`. */
export function signedUrl({ config, linkKey, viewer }: LinkContext, path: string): string {
  if (!viewer) throw new Error('A link was made for nobody.');
  const expires = (Math.ceil(Date.now() / gridMs) + 1) * gridMs;
  const whose = viewer.by === 'SESSION' ? `session=${viewer.familyId}` : `key=${viewer.key.id}`;
  const signature = sign(linkKey, path, expires, whose).toString('base64url');
  return publicAddress(config, `${path}?expires=${expires}&${whose}&signature=${signature}`);
}

/**
 * Throws FORBIDDEN unless the link was made by this server, has not expired and its session or API key works; returns the milliseconds that are
 * left.
 */
export function checkLink({ db, linkKey }: { db: Db; linkKey: Buffer }, { pathname, searchParams }: URL): number {
  const expires = Number(searchParams.get('expires'));
  const apiKeyId = searchParams.get('key');
  const familyId = searchParams.get('session');
  const given = Buffer.from(searchParams.get('signature') ?? '', 'base64url');
  const right = sign(linkKey, pathname, expires, apiKeyId === null ? `session=${familyId}` : `key=${apiKeyId}`);
  const leftMs = expires - Date.now();
  if (given.length !== right.length || !timingSafeEqual(given, right) || leftMs <= 0 || !userOf(db, { familyId, apiKeyId })) {
    throw new ApiError(
      'FORBIDDEN',
      'The link has expired, its session or API key has ended, or it is not one of this server. Ask the API for a new one.',
    );
  }
  return leftMs;
}

function sign(linkKey: Buffer, path: string, expires: number, whose: string): Buffer {
  return createHmac('sha256', linkKey).update(`${path}\n${expires}\n${whose}`).digest();
}
