import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { keysUsedHeader } from '../accessTokens.ts';
import type { Config } from '../config.ts';
import type { Db } from '../db.ts';
import { ApiError } from '../errors.ts';
import { hasVersion } from '../storage/files.ts';
import { authSnapshot } from './authSnapshot.ts';
import type { Tokens } from './tokens.ts';
import { noteUse } from './viewer.ts';

interface SnapshotServices {
  config: Pick<Config, 'replicaToken'>;
  db: Db;
  tokens: Pick<Tokens, 'publicKey'>;
}

const sha256 = (text: string): Buffer => createHash('sha256').update(text).digest();

/** `GET /inference/accounts`: an `AuthSnapshot` for replicas, who have WHETSTONE_REPLICA_TOKEN and poll it with the ETag that they have. */
export function serveAuthSnapshot({ config, ...services }: SnapshotServices, req: IncomingMessage, res: ServerResponse): void {
  if (config.replicaToken === undefined) {
    throw new ApiError('NOT_FOUND', 'This server has no replicas: it was started without WHETSTONE_REPLICA_TOKEN.');
  }
  const given = /^Bearer (.+)$/i.exec(req.headers.authorization ?? '')?.[1] ?? '';
  // Hashes have the same length, and comparing them tells nothing of what they are of.
  if (!timingSafeEqual(sha256(given), sha256(config.replicaToken))) {
    throw new ApiError('UNAUTHENTICATED', 'Send `Authorization: Bearer` and the WHETSTONE_REPLICA_TOKEN of this server.');
  }
  const used = String(req.headers[keysUsedHeader] ?? '').split(',');
  noteUse(
    services.db,
    used.filter((hash) => /^[0-9a-f]{64}$/.test(hash)),
  );
  const text = JSON.stringify(authSnapshot(services));
  const etag = `"${sha256(text).toString('hex')}"`;
  res.setHeader('ETag', etag);
  res.setHeader('Cache-Control', 'no-store');
  if (hasVersion(req, etag)) res.writeHead(304).end();
  else res.writeHead(200, { 'Content-Type': 'application/json; charset=utf-8', 'Content-Length': Buffer.byteLength(text) }).end(text);
}
