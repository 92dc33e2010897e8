import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { DetailedError, Upload } from 'tus-js-client';
import { hashFile } from '../hash.ts';
import { type ClientSession, call } from './client.ts';

/** What a mutation needs that uses the upload. */
export interface Uploaded {
  uploadId: string;
  sha256: string;
  sizeBytes: number;
}

/** Waits before a broken connection is tried again; the count starts again at zero whenever bytes arrived. */
const retryDelays = [0, 1000, 3000, 5000, 10_000, 20_000];

/**
 * Uploads a file over tus. One of the same name and size that was interrupted, however long ago the server still has it, is
 * resumed; should it turn out to have been another file, the upload starts again from its beginning.
 */
export async function uploadFile(
  session: ClientSession,
  path: string,
  progress: (sentBytes: number, sizeBytes: number) => void,
): Promise<Uploaded> {
  const found = await stat(path).catch(() => null);
  if (!found?.isFile()) throw new Error(`There is no file ${path}.`);
  const file = { path, fileName: basename(path), sizeBytes: found.size };
  const sha256 = hashFile(path);
  sha256.catch(() => {});
  const begun = await findBegun(session, file.fileName, file.sizeBytes);
  for (const resumed of begun === null ? [null] : [begun, null]) {
    const address = await send(session, file, resumed, progress);
    const uploaded = await request(session, 'GET', address);
    if (uploaded.sha256 === (await sha256)) {
      return { uploadId: String(uploaded.uploadId), sha256: uploaded.sha256, sizeBytes: file.sizeBytes };
    }
    await fetch(address, {
      method: 'DELETE',
      headers: { Authorization: `Bearer ${await session.accessToken()}`, 'Tus-Resumable': '1.0.0' },
    });
  }
  throw new Error('The server received other bytes than those of the file. Does something change it? Upload it again.');
}

async function request(session: ClientSession, method: string, address: string): Promise<Record<string, unknown>> {
  return call(address, { method, headers: { Authorization: `Bearer ${await session.accessToken()}` } });
}

/** Address of the newest unfinished upload of this name and size. */
async function findBegun(session: ClientSession, fileName: string, sizeBytes: number): Promise<string | null> {
  const { uploads } = await request(session, 'GET', `${session.url}/uploads`);
  const same = (uploads as { uploadId: string; state: string; fileName: string; sizeBytes: number }[]).filter(
    (u) => u.state === 'OPEN' && u.fileName === fileName && u.sizeBytes === sizeBytes,
  );
  const newest = same.at(-1);
  return newest ? `${session.url}/uploads/${newest.uploadId}` : null;
}

/** Sends what the server does not have yet, and returns the address of the upload. */
function send(
  session: ClientSession,
  { path, fileName, sizeBytes }: { path: string; fileName: string; sizeBytes: number },
  uploadUrl: string | null,
  progress: (sentBytes: number, sizeBytes: number) => void,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const upload = new Upload(createReadStream(path) as never, {
      endpoint: `${session.url}/uploads`,
      uploadUrl,
      uploadSize: sizeBytes,
      metadata: { filename: fileName },
      retryDelays,
      storeFingerprintForResuming: false,
      onBeforeRequest: async (req) => req.setHeader('Authorization', `Bearer ${await session.accessToken()}`),
      onProgress: progress,
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
    return 'The connection to the server broke and did not come back. Run the same command again to resume the upload.';
  }
}

/** A line that shows how far it is: drawn in place on a terminal, otherwise written at each tenth. */
export function progressBar(output: NodeJS.WriteStream): { show(doneBytes: number, totalBytes: number): void; end(): void } {
  const startedAt = performance.now();
  let first: number | null = null;
  let shownAt = Number.NEGATIVE_INFINITY;
  let tenth = -1;
  return {
    show(done, total) {
      first ??= done;
      const share = total === 0 ? 1 : done / total;
      const now = performance.now();
      const bytesPerSecond = ((done - first) / Math.max(now - startedAt, 1)) * 1000;
      const line = `${String(Math.floor(share * 100)).padStart(3)} %  ${inMiB(done)} of ${inMiB(total)} MiB  ${inMiB(bytesPerSecond)} MiB/s`;
      if (output.isTTY) {
        if (now - shownAt < 100 && done < total) return;
        shownAt = now;
        output.write(`\r[${'#'.repeat(Math.round(share * 30)).padEnd(30, '.')}] ${line}\x1b[K`);
      } else if (Math.floor(share * 10) > tenth) {
        tenth = Math.floor(share * 10);
        output.write(`${line}\n`);
      }
    },
    end() {
      if (output.isTTY && first !== null) output.write('\n');
    },
  };
}

const inMiB = (bytes: number): string => (bytes / 1024 ** 2).toFixed(1);
