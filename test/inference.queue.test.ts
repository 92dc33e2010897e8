import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Batch, type Costed, type Entry, Queue } from '../src/inference/queue.ts';
import { RunTimes } from '../src/inference/runTimes.ts';

/** A model whose runs take this long, whatever is in them. */
function modelOf(ms: number, batchMax = 1): Costed {
  const times = new RunTimes();
  for (const rows of new Set([1, batchMax])) times.observe(rows, ms);
  return { times, batchMax };
}

const entryOf = (model: Costed, change: Partial<Entry> = {}): Entry => ({
  model,
  batchKey: 'same',
  rows: 1,
  priority: 5,
  deadlineMs: 1e6,
  ready: true,
  ...change,
});
const idle = { staged: false };

/** Ten entries of 10 ms each that are served one after the other, and whether one behind ten others is let in. */
function tens(): { serve(from: number, eachMs: number): void; fits(from: number, withinMs: number): boolean } {
  const model = modelOf(10);
  const queue = new Queue<Entry>({ permits: 1, requestsMax: 100 });
  return {
    serve(from, eachMs) {
      for (let n = 0; n < 10; n += 1) queue.offer(entryOf(model), from);
      for (let n = 1; n <= 10; n += 1) queue.ended(queue.take(from + (n - 1) * eachMs, idle) as Batch<Entry>, from + n * eachMs);
    },
    fits(from, withinMs) {
      for (let n = 0; n < 10; n += 1) queue.add(entryOf(model));
      const refusal = queue.offer(entryOf(model, { deadlineMs: from + withinMs }), from);
      for (let batch = queue.take(from, idle); batch; batch = queue.take(from, idle)) queue.ended(batch, from, false);
      return refusal === null;
    },
  };
}

describe('who is let in', () => {
  test('what can be answered before its deadline', () => {
    const queue = new Queue({ permits: 1, requestsMax: 10 });
    expect(queue.offer(entryOf(modelOf(10), { deadlineMs: 10 }), 0)).toBeNull();
  });

  test('nothing faster than any run ever was, even when nothing else is there', () => {
    const queue = new Queue({ permits: 1, requestsMax: 10 });
    expect(queue.offer(entryOf(modelOf(10), { deadlineMs: 9 }), 0)).toEqual({ reason: 'LATE', retryAfterMs: 1 });
  });

  test('the work before it counts: what computes, what is staged, what waits; over the permits', () => {
    const model = modelOf(10);
    for (const [permits, waitMs] of [
      [1, 1.2 * (10 + 10 + 10 - 4)],
      [2, (1.2 * (10 + 10 + 10 - 4)) / 2],
    ] as const) {
      const queue = new Queue<Entry>({ permits, requestsMax: 10 });
      for (let n = 0; n < 3; n += 1) queue.offer(entryOf(model), 0);
      queue.take(0, idle);
      queue.take(0, { staged: true });
      const now = 4;
      expect(queue.offer(entryOf(model, { deadlineMs: now + waitMs + 9.9 }), now)).toMatchObject({ reason: 'LATE' });
      expect(queue.offer(entryOf(model, { deadlineMs: now + waitMs + 10.1 }), now)).toBeNull();
    }
  });

  test('where waiting took longer than predicted, it is predicted to take as much longer, until it does not', () => {
    const { serve, fits } = tens();
    expect([fits(0, 130), fits(0, 129)]).toEqual([true, false]);
    for (let round = 0; round < 20; round += 1) serve(1000 * round, 15);
    expect([fits(50_000, 140), fits(50_000, 175)]).toEqual([false, true]);
    for (let round = 60; round < 80; round += 1) serve(1000 * round, 10);
    expect([fits(99_000, 130), fits(99_000, 129)]).toEqual([true, false]);
  });

  test('never more than three times as much, however long a spell of something else was', () => {
    const { serve, fits } = tens();
    serve(0, 1000);
    expect([fits(50_000, 310), fits(50_000, 309)]).toEqual([true, false]);
  });

  test('what expires in the queue teaches too: otherwise only what was in time would be seen', () => {
    const model = modelOf(10);
    const queue = new Queue<Entry>({ permits: 1, requestsMax: 100 });
    for (let round = 0; round < 10; round += 1) {
      const from = 1000 * round;
      const entries = Array.from({ length: 10 }, () => entryOf(model, { deadlineMs: from + 121 }));
      expect(queue.offer(entries[0] as Entry, from)).toBeNull();
      // Nothing is dispatched.
      for (const entry of entries.slice(1)) queue.offer(entry, from);
      const waiting = queue.length;
      for (const entry of entries) {
        queue.expired(entry, from + 121);
        queue.remove(entry);
      }
      if (round > 0) expect(waiting).toBeLessThan(10);
    }
  });

  test('what waits with a lower priority does not count', () => {
    const model = modelOf(10);
    const queue = new Queue<Entry>({ permits: 1, requestsMax: 200 });
    for (let n = 0; n < 100; n += 1) queue.offer(entryOf(model), 0);
    expect(queue.offer(entryOf(model, { priority: 1, deadlineMs: 15 }), 0)).toBeNull();
    expect(queue.offer(entryOf(model, { priority: 5, deadlineMs: 900 }), 0)).toMatchObject({ reason: 'LATE' });
  });

  test('no more than the bound, and the refusal says when there is room', () => {
    const model = modelOf(10);
    const queue = new Queue<Entry>({ permits: 1, requestsMax: 3 });
    for (let n = 0; n < 3; n += 1) expect(queue.offer(entryOf(model), 0)).toBeNull();
    expect(queue.offer(entryOf(model), 0)).toEqual({ reason: 'FULL', retryAfterMs: 36 });
  });

  test('a run that is over its estimate holds back the more, the longer it goes on', () => {
    const model = modelOf(10);
    const queue = new Queue<Entry>({ permits: 1, requestsMax: 10 });
    queue.offer(entryOf(model), 0);
    queue.take(0, idle);
    expect(queue.offer(entryOf(model, { deadlineMs: 1100 }), 1000)).toMatchObject({ reason: 'LATE', retryAfterMs: 1.2 * 990 + 10 - 100 });
  });

  test('one slow run does not shut the model out: the next is tried as soon as nothing is there', () => {
    const model = modelOf(10);
    model.times.observe(1, 10_000);
    const queue = new Queue({ permits: 1, requestsMax: 10 });
    expect(queue.offer(entryOf(model, { deadlineMs: 100 }), 0)).toBeNull();
  });
});

describe('who goes next', () => {
  test('priority, then age', () => {
    const model = modelOf(1);
    const queue = new Queue<Entry>({ permits: 1, requestsMax: 10 });
    const [late, old, young, first] = [entryOf(model, { priority: 9 }), entryOf(model), entryOf(model), entryOf(model, { priority: 1 })];
    for (const entry of [late, old, young, first]) queue.add(entry);
    expect([1, 2, 3, 4].map(() => queue.take(0, idle)?.entries[0])).toEqual([first, old, young, late]);
    expect(queue.take(0, idle)).toBeNull();
  });

  test('what cannot be in time any more is passed over', () => {
    const model = modelOf(10);
    const queue = new Queue<Entry>({ permits: 1, requestsMax: 10 });
    const [doomed, other] = [entryOf(model, { deadlineMs: 25 }), entryOf(model)];
    queue.offer(doomed, 0);
    queue.offer(other, 0);
    expect(queue.take(20, idle)?.entries).toEqual([other]);
    expect(queue.length).toBe(1);
    expect(queue.remove(doomed)).toBe(true);
  });

  test('a batch has one model and one shape, at most batchMax items, and keeps every deadline', () => {
    const model = modelOf(10, 4);
    const queue = new Queue<Entry>({ permits: 1, requestsMax: 10 });
    const entries = [
      entryOf(model),
      entryOf(model, { batchKey: 'other' }),
      entryOf(modelOf(10, 4)),
      entryOf(model, { rows: 2 }),
      entryOf(model, { rows: 2 }),
      entryOf(model, { deadlineMs: 5 }),
      entryOf(model),
    ];
    for (const entry of entries) queue.add(entry);
    expect(queue.take(0, idle)).toEqual({ entries: [entries[0], entries[3], entries[6]], rows: 4 });
  });
});

describe('models share the permits', () => {
  test('a full queue of one model refuses no request to another', () => {
    const [busy, other] = [modelOf(100), modelOf(10)];
    const queue = new Queue<Entry>({ permits: 1, requestsMax: 256 });
    let refusal = null;
    while (!refusal) refusal = queue.offer(entryOf(busy, { deadlineMs: 1e6 }), 0);
    expect([refusal.reason, queue.length]).toEqual(['FULL', 256]);
    expect(queue.offer(entryOf(other, { deadlineMs: 200 }), 0)).toBeNull();
    expect(queue.take(0, idle)?.entries[0]?.model).toBe(other);
  });

  test('where both have work waiting, each gets half of the time, whoever sends more', () => {
    const [slow, fast] = [modelOf(40), modelOf(10)];
    const queue = new Queue<Entry>({ permits: 1, requestsMax: 256 });
    for (let n = 0; n < 100; n += 1) queue.add(entryOf(slow));
    for (let n = 0; n < 40; n += 1) queue.add(entryOf(fast));
    const taken = Array.from({ length: 50 }, () => queue.take(0, idle)?.entries[0]?.model);
    expect(taken.filter((model) => model === fast)).toHaveLength(40);
    expect(taken.filter((model) => model === slow)).toHaveLength(10);
  });

  test('what has left the queue is not charged to its model', () => {
    const [left, other] = [modelOf(40), modelOf(10)];
    const queue = new Queue<Entry>({ permits: 1, requestsMax: 256 });
    const gone = Array.from({ length: 100 }, () => entryOf(left));
    for (const entry of gone) queue.add(entry);
    for (const entry of gone) queue.remove(entry);
    for (let n = 0; n < 10; n += 1) queue.add(entryOf(other));
    queue.add(entryOf(left));
    expect(Array.from({ length: 5 }, () => queue.take(0, idle)?.entries[0]?.model)).toContain(left);
  });
});

test('an entry whose input is still being made keeps its place, and is passed over until it is ready', () => {
  const model = modelOf(10);
  const queue = new Queue<Entry>({ permits: 1, requestsMax: 10 });
  const [image, other] = [entryOf(model, { ready: false }), entryOf(model)];
  expect(queue.offer(image, 0)).toBeNull();
  expect(queue.offer(entryOf(model, { deadlineMs: 21 }), 0)).toMatchObject({ reason: 'LATE' });
  expect(queue.offer(other, 0)).toBeNull();
  expect(queue.take(0, idle)?.entries).toEqual([other]);
  queue.ready(image, 5);
  expect(queue.take(5, idle)?.entries).toEqual([image]);
});

test('a request that is staged behind a run is not taken where that run leaves it no time', () => {
  const model = modelOf(10);
  const queue = new Queue<Entry>({ permits: 1, requestsMax: 10 });
  const [ahead, tight, wide] = [entryOf(model), entryOf(model, { deadlineMs: 15 }), entryOf(model)];
  for (const entry of [ahead, tight, wide]) queue.add(entry);
  const run = queue.take(0, idle) as Batch<Entry>;
  expect(queue.take(0, { staged: true })?.entries).toEqual([wide]);
  // It ends earlier than expected.
  queue.ended(run, 4);
  expect(queue.take(4, idle)?.entries).toEqual([tight]);
});

/** Arrivals, completions and departures in any order, against what must always hold. */
test('whatever happens: bounds hold, the best goes first, everybody leaves once', () => {
  const arrival = fc.record({
    kind: fc.constant('arrive' as const),
    model: fc.nat(2),
    rows: fc.integer({ min: 1, max: 3 }),
    priority: fc.integer({ min: 1, max: 3 }),
    withinMs: fc.integer({ min: 1, max: 100 }),
    batchKey: fc.constantFrom('a', 'b'),
  });
  const step = fc.oneof(arrival, fc.record({ kind: fc.constantFrom('end' as const, 'leave' as const, 'wait' as const), n: fc.nat(50) }));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 100 }), fc.integer({ min: 1, max: 3 }), (steps, permits) => {
      const models = [modelOf(2), modelOf(5, 2), modelOf(20, 4)];
      const queue = new Queue<Entry & { n: number }>({ permits, requestsMax: 8 });
      const waiting = new Set<Entry & { n: number }>();
      const runs: Batch<Entry & { n: number }>[] = [];
      let now = 0;
      for (const [n, one] of steps.entries()) {
        if (one.kind === 'arrive') {
          const { model, withinMs, ...rest } = one;
          const entry = { ...rest, n, model: models[model] as Costed, deadlineMs: now + withinMs, ready: true };
          const quiet = waiting.size === 0 && runs.length < permits;
          const refusal = queue.offer(entry, now);
          if (!refusal) waiting.add(entry);
          if (quiet && withinMs >= entry.model.times.fastest(entry.rows)) expect(refusal).toBeNull();
          if (refusal?.reason === 'FULL') expect([...waiting].filter((other) => other.model === entry.model)).toHaveLength(8);
        } else if (one.kind === 'end' && runs.length > 0) {
          queue.ended(runs.splice(one.n % runs.length, 1)[0] as (typeof runs)[0], now);
        } else if (one.kind === 'leave' && waiting.size > 0) {
          const entry = [...waiting][one.n % waiting.size] as Entry & { n: number };
          expect(queue.remove(entry)).toBe(true);
          expect(queue.remove(entry)).toBe(false);
          waiting.delete(entry);
        } else {
          now += one.kind === 'wait' ? one.n : 0;
        }
        while (runs.length < permits) {
          const batch = queue.take(now, idle);
          const able = [...waiting].filter((entry) => now + entry.model.times.fastest(entry.rows) <= entry.deadlineMs);
          if (!batch) {
            expect(able).toEqual([]);
            break;
          }
          const [first] = batch.entries as [Entry & { n: number }];
          expect(first.priority).toBe(Math.min(...able.map(({ priority }) => priority)));
          // Of its model the oldest.
          const own = able.filter(({ model, priority }) => model === first.model && priority === first.priority);
          expect(first.n).toBe(Math.min(...own.map(({ n }) => n)));
          expect(batch.rows).toBe(batch.entries.reduce((sum, { rows }) => sum + rows, 0));
          if (batch.entries.length > 1) expect(batch.rows).toBeLessThanOrEqual(first.model.batchMax);
          for (const entry of batch.entries) {
            expect([entry.model, entry.batchKey]).toEqual([first.model, first.batchKey]);
            expect(waiting.delete(entry)).toBe(true);
          }
          runs.push(batch);
        }
        expect(queue.length).toBe(waiting.size);
        expect(queue.length).toBeLessThanOrEqual(3 * 8);
      }
    }),
    { numRuns: 300, seed: 5 },
  );
});

describe('how long a run takes', () => {
  test('the mean follows, the cautious estimate is above it, the fastest stays', () => {
    const times = new RunTimes();
    times.observe(1, 10);
    for (let n = 0; n < 100; n += 1) times.observe(1, n % 2 === 0 ? 20 : 24);
    expect(times.mean(1)).toBeGreaterThan(20);
    expect(times.mean(1)).toBeLessThan(24);
    expect(times.cautious(1)).toBeGreaterThan(24);
    expect(times.fastest(1)).toBe(10);
  });

  test('a number of items that was never seen costs in proportion to the nearest', () => {
    const times = new RunTimes();
    expect(times.mean(3)).toBe(0);
    times.observe(1, 10);
    times.observe(8, 40);
    expect([times.mean(2), times.mean(16), times.mean(8)]).toEqual([20, 80, 40]);
  });
});
