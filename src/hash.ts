import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';

/** SHA-256 of a file in hexadecimal. One buffer is read into again and again: a stream's new ones cost more than the hash. */
export async function hashFile(path: string, signal?: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  const buffer = Buffer.allocUnsafe(1024 * 1024);
  const file = await open(path);
  try {
    for (let bytesRead = 1; bytesRead > 0; ) {
      signal?.throwIfAborted();
      ({ bytesRead } = await file.read(buffer));
      hash.update(buffer.subarray(0, bytesRead));
    }
  } finally {
    await file.close();
  }
  return hash.digest('hex');
}
