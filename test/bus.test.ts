import { setImmediate } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import { createBus, queueOf } from '../src/bus.ts';

/** Bytes of the heap that something still refers to. */
function heapBytes(): number {
  setFlagsFromString('--expose_gc');
  runInNewContext('gc')();
  return process.memoryUsage().heapUsed;
}

/** An event that is told from others by its number. */
const numbered = (n: number, padding = '') => ({ familyId: null, reason: `${n} ${padding}` });
const numberOf = ({ reason }: { reason: string }) => Number.parseInt(reason, 10);

test('50,000 events to 100 subscribers of which one never reads: the others get all in order, its queue and the memory stay bounded', async () => {
  const events = 50_000;
  const limit = 1000;
  const bus = createBus();
  const laggard = bus.subscribe('accessEnded', 'u', limit);
  const readers = Array.from({ length: 99 }, () => bus.subscribe('accessEnded', 'u', limit));
  const before = heapBytes();
  const reading = readers.map(async (reader) => {
    let next = 0;
    for await (const event of reader) {
      if (numberOf(event) !== next) throw new Error(`event ${numberOf(event)} instead of ${next}`);
      next += 1;
      if (next === events) break;
    }
    return next;
  });
  for (let n = 0; n < events; n++) {
    // Text of its own for each event, or it would be held once however many refer to it.
    bus.publish('accessEnded', 'u', numbered(n, Buffer.alloc(2000, String(n)).toString('latin1')));
    if (n % (limit / 2) === 0) await setImmediate();
  }
  expect(await Promise.all(reading)).toEqual(readers.map(() => events));

  // 50,000 events that were kept are 100 MB.
  expect((heapBytes() - before) / 1024 / 1024, 'MiB').toBeLessThan(20);
  const kept: number[] = [];
  for (let i = 0; i < limit; i++) kept.push(numberOf((await laggard.next()).value as never));
  expect(kept, 'the latest, so that the gap before them shows').toEqual(Array.from({ length: limit }, (_, i) => events - limit + i));
  const more = laggard.next();
  bus.publish('accessEnded', 'u', numbered(events));
  expect(numberOf((await more).value as never)).toBe(events);
});

test('a subscriber gets what is published from the subscription on, not from the first read', async () => {
  const bus = createBus();
  bus.publish('accessEnded', 'u', numbered(0));
  const subscription = bus.subscribe('accessEnded', 'u', 10);
  bus.publish('accessEnded', 'u', numbered(1));
  expect(numberOf((await subscription.next()).value as never)).toBe(1);
});

test('a key is heard by those who listen to it and by nobody else', async () => {
  const bus = createBus();
  const heard: string[] = [];
  bus.on('accessEnded', 'a', ({ reason }) => heard.push(`a ${reason}`));
  bus.on('accessEnded', 'b', ({ reason }) => heard.push(`b ${reason}`));
  bus.publish('accessEnded', 'a', { familyId: null, reason: 'one' });
  bus.publish('accessEnded', 'c', { familyId: null, reason: 'two' });
  expect(heard).toEqual(['a one']);
});

test('a listener that was stopped, also by itself or by another in the middle of an event, hears no more', () => {
  const bus = createBus();
  const heard: string[] = [];
  const offFirst = bus.on('accessEnded', 'u', () => {
    heard.push('first');
    offFirst();
    offSecond();
  });
  const offSecond = bus.on('accessEnded', 'u', () => heard.push('second'));
  bus.on('accessEnded', 'u', () => heard.push('third'));
  bus.publish('accessEnded', 'u', numbered(0));
  bus.publish('accessEnded', 'u', numbered(1));
  expect(heard).toEqual(['first', 'third', 'third']);
});

test('a subscription that is left detaches once, ends the read that waits, and forgets what it held', async () => {
  let detached = 0;
  let push: (n: number) => void = () => {};
  const subscription = queueOf<number>(10, (p) => {
    push = p;
    return () => {
      detached += 1;
    };
  });
  const waiting = subscription.next();
  push(1);
  push(2);
  expect(await waiting).toEqual({ done: false, value: 1 });
  await subscription.return();
  expect(await subscription.next()).toEqual({ done: true, value: undefined });
  expect(detached).toBe(1);

  const silent = queueOf<number>(10, () => () => {});
  const forEver = silent.next();
  await silent.return();
  expect(await forEver).toEqual({ done: true, value: undefined });
});

test('a loop over a subscription that breaks detaches it', async () => {
  const bus = createBus();
  const subscription = bus.subscribe('accessEnded', 'u', 10);
  bus.publish('accessEnded', 'u', numbered(1));
  for await (const event of subscription) {
    expect(numberOf(event)).toBe(1);
    break;
  }
  bus.publish('accessEnded', 'u', numbered(2));
  expect(await subscription.next()).toEqual({ done: true, value: undefined });
});

test('100,000 subscriptions that were left cost no memory', async () => {
  const bus = createBus();
  const before = heapBytes();
  for (let i = 0; i < 100_000; i++) await bus.subscribe('accessEnded', `key ${i}`, 10).return();
  expect((heapBytes() - before) / 1024 / 1024, 'MiB').toBeLessThan(5);
});
