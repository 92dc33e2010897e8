/** Memory that is kept for the next request goes when there is none. */
import { afterEach, expect, test, vi } from 'vitest';
import { Memory } from '../src/inference/memory.ts';

afterEach(() => {
  vi.useRealTimers();
});

test('a buffer of a request serves the next one; when none has come for 30 seconds it is freed', () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  const holding = new Memory(2 ** 30).open('model');
  const once = holding.take(2 ** 22);
  holding.give(once);
  vi.advanceTimersByTime(29_000);
  expect(holding.take(2 ** 22)).toBe(once);
  holding.give(once);
  vi.advanceTimersByTime(29_000);
  expect(once.buffer.byteLength).toBe(2 ** 22);
  vi.advanceTimersByTime(1000);
  expect(once.buffer.byteLength).toBe(0);
  expect(holding.take(2 ** 22)).not.toBe(once);
});
