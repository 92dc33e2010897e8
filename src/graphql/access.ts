import { userOf, type Viewer } from '../accounts/viewer.ts';
import type { Bus } from '../bus.ts';
import type { Db } from '../db.ts';
import { ApiError } from '../errors.ts';

/** Of a timer: a longer one goes off at once. */
const timerMsMax = 2 ** 31 - 1;

/**
 * Aborts, with an ApiError as its reason, when a viewer's access ends while something stays open for them: the token expires, the
 * session ends, the API key is revoked, the role changes. `stop` must be called when nothing is open any more.
 */
export function watchAccess({ db, bus }: { db: Db; bus: Bus }, viewer: Viewer): { signal: AbortSignal; stop: () => void } {
  const controller = new AbortController();
  const end = (reason: ApiError) => {
    stop();
    controller.abort(reason);
  };
  const { access, ended, expired } =
    viewer.by === 'SESSION'
      ? {
          access: { familyId: viewer.familyId },
          ended: 'The session has ended. Log in again.',
          expired: 'The access token has expired: refresh it.',
        }
      : {
          access: { apiKeyId: viewer.key.id },
          ended: 'The API key was revoked, or its owner is disabled.',
          expired: 'The API key has expired.',
        };
  let timer: NodeJS.Timeout | undefined;
  const expireAt = (at: number) => {
    const leftMs = at - Date.now();
    const next = () => (leftMs > timerMsMax ? expireAt(at) : end(new ApiError('UNAUTHENTICATED', expired)));
    timer = setTimeout(next, Math.min(leftMs, timerMsMax)).unref();
  };
  if (viewer.expiresAt !== null) expireAt(viewer.expiresAt);
  const off = bus.on('accessChanged', viewer.user.id, () => {
    try {
      const user = userOf(db, access);
      if (!user) end(new ApiError('UNAUTHENTICATED', ended));
      else if (user.role !== viewer.user.role) end(new ApiError('UNAUTHENTICATED', 'The role was changed. Subscribe again.'));
    } catch {
      // Access that cannot be read is none: the database is locked.
      end(new ApiError('UNAVAILABLE', 'Your access could not be read. Subscribe again.', 1000));
    }
  });
  const stop = () => {
    clearTimeout(timer);
    off();
  };
  return { signal: controller.signal, stop };
}

/**
 * `source` until `signal` aborts: then `last` makes one more item of the reason, and the stream is over. `close` is called once at
 * the end, whoever ended it, also before the first read. Written as an iterator: the `return` of a generator would wait for its pending
 * `next`, and a Repeater that was never read does nothing at its end.
 */
export function untilAborted<T>(
  source: AsyncIterator<T>,
  signal: AbortSignal,
  last: (reason: unknown) => T,
  close: () => void,
): AsyncIterableIterator<T> {
  let state: 'open' | 'aborted' | 'closed' = 'open';
  // Each read waits on a promise of its own: one for all would hold something of every read until the end.
  let interrupt = () => {};
  const abort = () => interrupt();
  signal.addEventListener('abort', abort);

  const end = async (): Promise<IteratorReturnResult<undefined>> => {
    if (state !== 'closed') {
      state = 'closed';
      signal.removeEventListener('abort', abort);
      close();
      await source.return?.();
    }
    return { done: true, value: undefined };
  };
  return {
    async next() {
      if (state !== 'open') return end();
      const aborted = new Promise<'aborted'>((resolve) => {
        interrupt = () => resolve('aborted');
      });
      if (signal.aborted) interrupt();
      try {
        const result = await Promise.race([aborted, source.next()]);
        if (result === 'aborted') {
          state = 'aborted';
          return { done: false, value: last(signal.reason) };
        }
        return result.done ? end() : result;
      } catch (error) {
        await end();
        throw error;
      }
    },
    return: end,
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
