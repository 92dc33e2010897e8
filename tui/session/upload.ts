/**
 * Sends a file over tus. One of the same name and size that was interrupted is continued, for as long as the server has it; should it turn out to
 * have been another file, the upload starts again from its beginning.
 */
import { createHash } from 'node:crypto';
import { createReadStream, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { DetailedError, Upload } from 'tus-js-client';
import type { Session } from './session.ts';

export interface Uploaded {
  uploadId: string;
  sha256: string;
}

/** Waits before a broken connection is tried again; the count starts again at zero whenever bytes arrived. */
const retryDelays = [0, 1000, 3000, 5000, 10_000, 20_000];

/** As a shell reads a path: `~` is the home folder. */
export const pathOf = (typed: string): string => resolve(typed.trim().replace(/^~(?=\/|$)/, homedir()));

export async function uploadFile(
  session: Session,
  typed: string,
  progress: (sentBytes: number, sizeBytes: number) => void,
): Promise<Uploaded> {
  const path = pathOf(typed);
  const found = statSync(path, { throwIfNoEntry: false });
  if (!found?.isFile()) throw new Error(`There is no file ${path}.`);
  const file = { path, name: basename(path), sizeBytes: found.size };
  const sha256 = hashOf(path);
  sha256.catch(() => {});
  const begun = await findBegun(session, file);
  for (const resumed of begun === null ? [null] : [begun, null]) {
    const address = await send(session, file, resumed, progress);
    const arrived = await ask(session, address);
    if (arrived.sha256 === (await sha256)) return { uploadId: String(arrived.uploadId), sha256: await sha256 };
    await fetch(address, { method: 'DELETE', headers: { ...(await authorization(session)), 'Tus-Resumable': '1.0.0' } });
  }
  throw new Error('The server received other bytes than those of the file. Does something change it? Upload it again.');
}

interface File {
  path: string;
  name: string;
  sizeBytes: number;
}

const authorization = async (session: Session) => ({ Authorization: `Bearer ${await session.accessToken()}` });

async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}

async function ask(session: Session, address: string): Promise<Record<string, unknown>> {
  const response = await fetch(address, { headers: await authorization(session) });
  const answer = await response.json();
  if (answer.errors) throw new Error(answer.errors[0].message);
  return answer;
}

/** Address of the newest unfinished upload of this name and size. */
async function findBegun(session: Session, { name, sizeBytes }: File): Promise<string | null> {
  const { uploads } = (await ask(session, `${session.url}/uploads`)) as {
    uploads: { uploadId: string; state: string; fileName: string; sizeBytes: number }[];
  };
  const newest = uploads.findLast((upload) => upload.state === 'OPEN' && upload.fileName === name && upload.sizeBytes === sizeBytes);
  return newest ? `${session.url}/uploads/${newest.uploadId}` : null;
}

/** Sends what the server does not have yet, and returns the address of the upload. */
function send(
  session: Session,
  { path, name, sizeBytes }: File,
  uploadUrl: string | null,
  onProgress: (sent: number, size: number) => void,
): Promise<string> {
  return new Promise((resolveAddress, reject) => {
    const upload = new Upload(createReadStream(path) as never, {
      endpoint: `${session.url}/uploads`,
      uploadUrl,
      uploadSize: sizeBytes,
      metadata: { filename: name },
      retryDelays,
      storeFingerprintForResuming: false,
      onBeforeRequest: async (request) => request.setHeader('Authorization', (await authorization(session)).Authorization),
      onProgress,
      onError: (error) => reject(new Error(reasonOf(error))),
      onSuccess: () => resolveAddress(upload.url as string),
    });
    upload.start();
  });
}

/** The server's own message, if there is one. */
function reasonOf(error: Error | DetailedError): string {
  const answer = error instanceof DetailedError ? error.originalResponse?.getBody() : undefined;
  try {
    return JSON.parse(answer ?? '').errors[0].message;
  } catch {
    return 'The connection broke and did not come back. Send the form again: the upload continues where it stopped.';
  }
}

export async function readImage(typed: string): Promise<Uint8Array> {
  const path = pathOf(typed);
  if (!statSync(path, { throwIfNoEntry: false })?.isFile()) throw new Error(`There is no file ${path}.`);
  return readFile(path);
}
