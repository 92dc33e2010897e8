import type { Viewer } from '../accounts/login.ts';
import type { Bus } from '../bus.ts';
import { ApiError } from '../errors.ts';

/**
 * Aborts, with an ApiError as its reason, when a viewer's access ends while something stays open for them: the token expires, the
 * session ends, the role changes. `stop` must be called when nothing is open any more.
 */
export function watchAccess(bus: Bus, viewer: Viewer): { signal: AbortSignal; stop: () => void } {
  const controller = new AbortController();
  const end = (reason: string) => controller.abort(new ApiError('UNAUTHENTICATED', reason));
  const timer = setTimeout(() => end('The access token has expired: refresh it.'), viewer.expiresAt - Date.now());
  timer.unref();
  const off = bus.on('accessEnded', viewer.user.id, ({ familyId, reason }) => {
    if (familyId === null || familyId === viewer.familyId) end(reason);
  });
  return {
    signal: controller.signal,
    stop: () => {
      clearTimeout(timer);
      off();
    },
  };
}

/**
 * `source` until `signal` aborts: then `last` makes one more item of the reason, and the stream is over. `close` is called once at
 * the end, whoever ended it. Written as an iterator: the `return` of a generator would wait for its pending `next`.
 */
export function untilAborted<T>(
  source: AsyncIterator<T>,
  signal: AbortSignal,
  last: (reason: unknown) => T,
  close: () => void,
): AsyncIterableIterator<T> {
  let state: 'open' | 'aborted' | 'closed' = 'open';
  let abort = () => {};
  const aborted = new Promise<'aborted'>((resolve) => {
    abort = () => resolve('aborted');
  });
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();

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
      const result = await Promise.race([aborted, source.next()]);
      if (result === 'aborted') {
        state = 'aborted';
        return { done: false, value: last(signal.reason) };
      }
      return result.done ? end() : result;
    },
    return: end,
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
