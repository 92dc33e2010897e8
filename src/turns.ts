/**
 * Long answers take turns on the event loop, so that none of them keeps the others waiting: what a request does after its first 5 ms runs in
 * slices of 5 ms, the requests one after the other, and the event loop answers everybody else in between.
 */
import { AsyncLocalStorage } from 'node:async_hooks';

const sliceMs = 5;

const begunAt = new WeakMap<object, number>();
const waiting = new Map<object, (() => void)[]>();
let sliceEndsAt = 0;
let scheduled = false;

/**
 * Runs `work` at once, or in a later turn when the time of this one is over. `request` is any object that all the work of a request shares.
 * `work` itself is not interrupted: what takes longer than some milliseconds calls this for each of its pieces.
 */
export function inTurn<T>(request: object, work: () => T): T | Promise<Awaited<T>> {
  if (!isOver(request)) return work();
  return new Promise((resolve, reject) => {
    const run = AsyncLocalStorage.bind(() => {
      try {
        resolve(work() as Awaited<T>);
      } catch (error) {
        reject(error);
      }
    });
    const works = waiting.get(request);
    if (works) works.push(run);
    else waiting.set(request, [run]);
  });
}

/** Whether a request has worked for longer than its first slice. */
export const tookTurns = (request: object): boolean => performance.now() - (begunAt.get(request) ?? Number.POSITIVE_INFINITY) >= sliceMs;

function isOver(request: object): boolean {
  const now = performance.now();
  const since = begunAt.get(request);
  if (since === undefined) begunAt.set(request, now);
  if (since === undefined || now - since < sliceMs) return false;
  if (!scheduled) {
    scheduled = true;
    sliceEndsAt = now + sliceMs;
    setImmediate(nextTurn);
  }
  return now >= sliceEndsAt;
}

function nextTurn(): void {
  sliceEndsAt = performance.now() + sliceMs;
  scheduled = waiting.size > 0;
  if (!scheduled) return;
  setImmediate(nextTurn);
  nextWork();
}

/**
 * Each piece of work comes behind the microtasks of the one before: what is made of its result, such as the values of a long list, counts in
 * this slice too.
 */
function nextWork(): void {
  if (performance.now() >= sliceEndsAt) return;
  const [first] = waiting;
  if (!first) return;
  const [request, works] = first;
  waiting.delete(request);
  // The latest first: an object is finished before the next one is begun, so that few are held at a time.
  const work = works.pop();
  if (works.length > 0) waiting.set(request, works);
  work?.();
  queueMicrotask(() => queueMicrotask(() => queueMicrotask(nextWork)));
}
