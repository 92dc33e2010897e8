/** Uploads for programs that talk to a server over its public API: the commands and the terminal UI. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { DetailedError, Upload } from 'tus-js-client';
import { startOrName } from './address.ts';

/** Where files are sent, and as whom. */
export interface ClientSession {
  /** Address of the server, without a slash at its end. */
  url: string;
  /** An access token that is valid now; asked for again before each request. */
  accessToken(): Promise<string>;
}

/** What a mutation needs that uses the upload. */
export interface Uploaded {
  uploadId: string;
  sha256: string;
  sizeBytes: number;
}

interface File {
  path: string;
  fileName: string;
  sizeBytes: number;
}

/** Waits before a broken connection is tried again; the count starts again at zero whenever bytes arrived. */
const retryDelays = [0, 1000, 3000, 5000, 10_000, 20_000];

/**
 * Uploads a file over tus. One of the same name and size that was interrupted, however long ago the server still has it, is
 * resumed; should it turn out to have been another file, the upload starts again from its beginning. Throws what the server answers, or that
 * the connection broke.
 */
export async function uploadFile(
  session: ClientSession,
  path: string,
  progress: (sentBytes: number, sizeBytes: number) => void,
): Promise<Uploaded> {
  const found = await stat(path).catch(() => null);
  if (found?.isDirectory()) {
    const zip = `${path}.zip`;
    throw new Error(`${path} is a folder. Make a zip of it with \`python3 -m zipfile -c '${zip}' '${path}'\`, then upload ${zip}.`);
  }
  if (!found?.isFile()) throw new Error(`There is no file ${path}.`);
  const file = { path, fileName: basename(path), sizeBytes: found.size };
  const hashed = sha256Of(path);
  hashed.catch(() => {});
  const begun = await findBegun(session, file);
  for (const resumed of begun === null ? [null] : [begun, null]) {
    const address = await send(session, file, resumed, progress);
    const { uploadId, sha256 } = await ask(session, address);
    if (sha256 === (await hashed)) return { uploadId: String(uploadId), sha256: await hashed, sizeBytes: file.sizeBytes };
    await fetch(address, { method: 'DELETE', headers: { ...(await authorization(session)), 'Tus-Resumable': '1.0.0' } });
  }
  throw new Error('The server received other bytes than those of the file. Does something change it? Upload it again.');
}

async function sha256Of(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: 2 ** 20 }), hash);
  return hash.digest('hex');
}

const authorization = async (session: ClientSession) => ({ Authorization: `Bearer ${await session.accessToken()}` });

async function ask(session: ClientSession, address: string): Promise<Record<string, unknown>> {
  const response = await fetch(address, { headers: await authorization(session) }).catch(() => {
    throw new Error(`There is no server at ${session.url}. ${startOrName}`);
  });
  const answer = await response.json().catch(() => ({ errors: [{ message: `${address} answered ${response.status}, but no JSON.` }] }));
  if (answer.errors) throw new Error(answer.errors[0].message);
  return answer;
}

/** Address of the newest unfinished upload of this name and size. */
async function findBegun(session: ClientSession, { fileName, sizeBytes }: File): Promise<string | null> {
  const { uploads } = (await ask(session, `${session.url}/uploads`)) as {
    uploads: { uploadId: string; state: string; fileName: string; sizeBytes: number }[];
  };
  const newest = uploads.findLast((upload) => upload.state === 'OPEN' && upload.fileName === fileName && upload.sizeBytes === sizeBytes);
  return newest ? `${session.url}/uploads/${newest.uploadId}` : null;
}

/** Sends what the server does not have yet, and returns the address of the upload. */
function send(
  session: ClientSession,
  { path, fileName, sizeBytes }: File,
  uploadUrl: string | null,
  onProgress: (sentBytes: number, sizeBytes: number) => void,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const upload = new Upload(createReadStream(path) as never, {
      endpoint: `${session.url}/uploads`,
      uploadUrl,
      uploadSize: sizeBytes,
      metadata: { filename: fileName },
      retryDelays,
      storeFingerprintForResuming: false,
      onBeforeRequest: async (request) => request.setHeader('Authorization', (await authorization(session)).Authorization),
      onProgress,
      onError: (error) => reject(new Error(reasonOf(error))),
      onSuccess: () => resolve(upload.url as string),
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
    return 'The connection to the server broke and did not come back. Send the same file again: the upload continues where it stopped.';
  }
}
