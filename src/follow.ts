import { Repeater } from '@repeaterjs/repeater';
import { ApiError } from './errors.ts';

type Attach = (wake: () => void) => () => void;

/**
 * A stream that reads when it is woken: `read` gives what stands behind its cursor, at first and after each wake, and returns true when
 * nothing can come any more. It reads on when the reader wants the next item, so a slow reader holds one item.
 * `attach` is called with the first read and returns the function that detaches.
 */
export function follow<T>(attach: Attach, read: () => Iterator<T, boolean> | AsyncIterator<T, boolean>): Repeater<T, undefined> {
  return new Repeater<T, undefined>(async (push, stop) => {
    let woken = Promise.withResolvers<void>();
    let isOpen = true;
    const detach = attach(() => woken.resolve());
    stop.then(() => {
      isOpen = false;
      woken.resolve();
    });
    try {
      while (isOpen) {
        woken = Promise.withResolvers();
        const items = read();
        let next = await items.next();
        for (; !next.done && isOpen; next = await items.next()) await push(next.value);
        if (next.done && next.value) return;
        await woken.promise;
      }
    } finally {
      detach();
      stop();
    }
  });
}

/** Wakes at each interval of 250 to 60,000 ms. */
export function every(intervalMs: number): Attach {
  if (intervalMs < 250 || intervalMs > 60_000) {
    throw new ApiError('LIMIT', `\`intervalMs\` is between 250 and 60000; it is ${intervalMs}.`);
  }
  return (wake) => {
    const timer = setInterval(wake, intervalMs);
    return () => clearInterval(timer);
  };
}

/** Readings of an interval that are closer together than this are one. */
const sharedMs = 200;

/** `read`, whose result is shared by those who ask while it is made and soon after; `keyOf` says who reads the same. */
export function sharedReading<Of, T>(keyOf: (of: Of) => object, read: (of: Of) => Promise<T>): (of: Of) => Promise<T> {
  const last = new WeakMap<object, { result: Promise<T>; staleAt: number }>();
  return (of) => {
    const known = last.get(keyOf(of));
    if (known && performance.now() < known.staleAt) return known.result;
    const entry = { result: read(of), staleAt: Number.POSITIVE_INFINITY };
    last.set(keyOf(of), entry);
    const end = () => {
      entry.staleAt = performance.now() + sharedMs;
    };
    entry.result.then(end, end);
    return entry.result;
  };
}
