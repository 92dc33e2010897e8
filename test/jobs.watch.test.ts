import { setImmediate } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, test } from 'vitest';
import { type Bus, createBus } from '../src/bus.ts';
import { inTransaction } from '../src/db.ts';
import { announceMove } from '../src/jobs/attempt.ts';
import { appendEvents } from '../src/jobs/events.ts';
import { type JobLog, openLog } from '../src/jobs/logs.ts';
import { endAttempt } from '../src/jobs/moves.ts';
import type { LogLine, Progress } from '../src/jobs/progress.ts';
import { claimNext, prepareSlots } from '../src/jobs/queue.ts';
import type { Job, JobEvent } from '../src/jobs/tables.ts';
import { watchEvents, watchJobs, watchLogs, watchProgress } from '../src/jobs/watch.ts';
import { type Jobs, withJobs } from './support/jobs.ts';

/** A job whose attempt runs, without a process. */
function runningJob(jobs: Jobs): string {
  prepareSlots(jobs.db, jobs.config.slots);
  const { id } = jobs.submit({ slots: 0 });
  claimNext(jobs.db, jobs.kinds);
  return id;
}

/** `count` events of `bytes` each, committed together, then published. */
function tell({ db, bus }: Jobs, id: string, count: number, bytes = 0): void {
  // Text of its own for each, or it would be held once however many refer to it.
  const warning = (n: number) => ({ code: 'TOLD', message: Buffer.alloc(bytes, String(n)).toString('latin1') });
  const told = Array.from({ length: count }, (_, n) => ({ type: 'WARNING' as const, payload: warning(n) }));
  for (const _ of inTransaction(db, (tx) => appendEvents(tx, id, 1, told))) bus.wake('jobEvent', id);
}

async function end(jobs: Jobs, id: string): Promise<void> {
  const move = endAttempt(jobs.db, jobs.kinds, id, 1, { state: 'SUCCEEDED', failure: null });
  if (move) announceMove(jobs, move);
}

const tick = (id: string, step: number): Progress => ({
  v: 1,
  job: id,
  attempt: 1,
  n: step,
  t: 0,
  type: 'batch',
  phase: 'training',
  step,
  done: step,
  total: null,
  epoch: null,
  epochs: null,
  metrics: {},
  itemsPerSecond: null,
  etaMs: null,
});

function tellTick({ bus, progress }: Jobs, id: string, step: number): void {
  progress.set(id, tick(id, step));
  bus.wake('jobProgress', id);
}

async function collect<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of stream) items.push(item);
  return items;
}

const seqs = (events: JobEvent[]) => events.map((e) => e.seq);
const from = (first: number, last: number) => Array.from({ length: last - first + 1 }, (_, i) => first + i);

/** Bytes of the heap that something still refers to. */
function heapBytes(): number {
  setFlagsFromString('--expose_gc');
  runInNewContext('gc')();
  return process.memoryUsage().heapUsed;
}

/** A bus that counts who listens. */
function counted(): Bus & { listeners(): number } {
  const bus = createBus();
  let listeners = 0;
  const on: Bus['on'] = (topic, key, listener) => {
    const off = bus.on(topic, key, listener);
    let on = true;
    listeners += 1;
    return () => {
      if (on) listeners -= 1;
      on = false;
      off();
    };
  };
  return { ...bus, on, listeners: () => listeners };
}

describe('events of a job', () => {
  test('come without a gap, however the reader and the writer interleave', async () => {
    await withJobs(async (jobs) => {
      const id = runningJob(jobs);
      const readers: Promise<number[]>[] = [];
      const read = async (after: number, pauses: number) => {
        const seen: number[] = [];
        for await (const { seq } of watchEvents(jobs, id, after)) {
          seen.push(seq);
          if (pauses > 0 && seq % pauses === 0) await setImmediate();
        }
        return seen;
      };
      // Batches below, at and above what a page and the queue hold; some are published while nobody's turn is.
      for (const [i, count] of [1, 2, 7, 199, 200, 201, 499, 500, 501, 1000, 3, 1].entries()) {
        readers.push(read(0, i), read(Math.max(0, jobs.job(id).nextSeq - 1 - i), 0));
        tell(jobs, id, count);
        if (i % 2 === 0) await setImmediate();
        tell(jobs, id, 1);
      }
      await end(jobs, id);
      const last = jobs.job(id).nextSeq - 1;
      for (const seen of await Promise.all(readers)) expect(seen).toEqual(from(seen[0] as number, last));
    });
  });

  test('behind `after`: from the start, the middle, the end, and beyond the end', async () => {
    await withJobs(async (jobs) => {
      const id = runningJob(jobs);
      tell(jobs, id, 10);
      const live = [0, 5, 12, 1000].map((after) => collect(watchEvents(jobs, id, after)));
      await setImmediate();
      tell(jobs, id, 3);
      await end(jobs, id);
      expect((await Promise.all(live)).map(seqs)).toEqual([from(1, 16), from(6, 16), from(13, 16), []]);
      const ended = [0, 15, 16, 1000].map((after) => collect(watchEvents(jobs, id, after)));
      expect((await Promise.all(ended)).map(seqs)).toEqual([from(1, 16), [16], [], []]);
    });
  });

  test('what was published between the subscription and the first read is not lost', async () => {
    await withJobs(async (jobs) => {
      const id = runningJob(jobs);
      const events = watchEvents(jobs, id, 2);
      tell(jobs, id, 1);
      await end(jobs, id);
      expect(seqs(await collect(events))).toEqual([3, 4]);
    });
  });

  test('50,000 of them to 20 subscribers of which one never reads: 19 get all, memory stays bounded, the laggard then reads on to the end', {
    timeout: 120_000,
  }, async () => {
    await withJobs(async (jobs) => {
      const id = runningJob(jobs);
      const laggard = watchEvents(jobs, id, 0);
      const { value: first } = await laggard.next();
      expect(first?.seq).toBe(1);
      const before = heapBytes();
      const readers = Array.from({ length: 19 }, async () => {
        let last = 0;
        for await (const { seq } of watchEvents(jobs, id, 0)) {
          if (seq !== last + 1) throw new Error(`event ${seq} after ${last}`);
          last = seq;
        }
        return last;
      });
      for (let n = 0; n < 50_000; n += 100) {
        tell(jobs, id, 100, 500);
        await setImmediate();
      }
      await end(jobs, id);
      expect(await Promise.all(readers)).toEqual(Array(19).fill(50_003));
      // 50,000 events that were kept are 40 MiB.
      expect((heapBytes() - before) / 2 ** 20, 'MiB').toBeLessThan(10);
      let last = 1;
      for await (const { seq } of laggard) {
        expect(seq).toBe(last + 1);
        last = seq;
      }
      expect(last).toBe(50_003);
    });
  });
});

describe('progress of a job', () => {
  test('the latest tick wins, none is told again, and it ends with the job', async () => {
    await withJobs(async (jobs) => {
      const id = runningJob(jobs);
      tellTick(jobs, id, 1);
      const ticks = watchProgress(jobs, id);
      for (const step of [2, 3, 4]) tellTick(jobs, id, step);
      expect((await ticks.next()).value?.step).toBe(4);
      const next = ticks.next();
      tellTick(jobs, id, 5);
      expect((await next).value?.step).toBe(5);
      const last = ticks.next();
      await end(jobs, id);
      expect((await last).done).toBe(true);
      expect(await collect(watchProgress(jobs, id))).toEqual([]);
    });
  });

  test('a job that ends between the subscription and the first read ends it', async () => {
    await withJobs(async (jobs) => {
      const id = runningJob(jobs);
      const ticks = watchProgress(jobs, id);
      await end(jobs, id);
      expect(await collect(ticks)).toEqual([]);
    });
  });
});

describe('the log of a job', () => {
  const write = ({ bus }: Jobs, id: string, log: JobLog, count: number) => {
    for (let i = 0; i < count; i += 1) {
      if (log.write({ at: 0, attemptNumber: 1, stream: 'stdout', text: 'a line' })) bus.wake('jobLog', id);
    }
  };
  const numbers = (lines: LogLine[]) => lines.map(({ n }) => n);

  test('comes without a gap between the file and the live lines, whatever the reader missed', async () => {
    await withJobs(async (jobs) => {
      const id = runningJob(jobs);
      const log = await openLog(jobs.folder, id);
      const readers: Promise<LogLine[]>[] = [];
      let written = 0;
      for (const count of [1, 10, 499, 500, 501, 3000, 1]) {
        readers.push(collect(watchLogs(jobs, id, 0)), collect(watchLogs(jobs, id, written)));
        write(jobs, id, log, count);
        written += count;
        await setImmediate();
      }
      log.close();
      const late = collect(watchLogs(jobs, id, written - 2));
      await end(jobs, id);
      for (const reader of readers) {
        const seen = numbers(await reader);
        expect(seen).toEqual(from(seen[0] as number, written));
      }
      expect(numbers(await late)).toEqual([written - 1, written]);
      expect(numbers(await collect(watchLogs(jobs, id, 0)))).toEqual(from(1, written));
      expect(await collect(watchLogs(jobs, id, written))).toEqual([]);
    });
  });

  test('lines that are written while the file is read, just before the job ends, come too', async () => {
    await withJobs(async (jobs) => {
      const id = runningJob(jobs);
      const log = await openLog(jobs.folder, id);
      write(jobs, id, log, 3);
      const lines = watchLogs(jobs, id, 0);
      const seen = [await lines.next(), await lines.next(), await lines.next()].map((l) => l.value?.n);
      // The reader looks at the end of the file; the lines are behind it.
      const next = lines.next();
      write(jobs, id, log, 2);
      await end(jobs, id);
      expect([...seen, (await next).value?.n, ...numbers(await collect(lines))]).toEqual([1, 2, 3, 4, 5]);
      log.close();
    });
  });
});

describe('all jobs', () => {
  test('those of now, then each that changes: a slow reader gets the latest state once, and never misses the last one', async () => {
    await withJobs(async (jobs) => {
      const id = runningJob(jobs);
      const stream = watchJobs(jobs, () => true);
      expect((await stream.next()).value).toMatchObject({ id, state: 'RUNNING' });
      const other = runningJob(jobs);
      for (let i = 0; i < 100; i += 1) for (const jobId of [id, other]) jobs.bus.wake('jobChanged', jobId);
      await end(jobs, id);
      const changed = [(await stream.next()).value, (await stream.next()).value] as Job[];
      expect(changed.map((j) => [j.id, j.state])).toEqual([
        [id, 'SUCCEEDED'],
        [other, 'RUNNING'],
      ]);
      const next = stream.next();
      await end(jobs, other);
      expect((await next).value).toMatchObject({ id: other, state: 'SUCCEEDED' });
      await stream.return?.();
    });
  });

  test('only those that match', async () => {
    await withJobs(async (jobs) => {
      const [a, b] = [runningJob(jobs), runningJob(jobs)];
      const stream = watchJobs(jobs, (job) => job.id === b);
      expect((await stream.next()).value?.id).toBe(b);
      const next = stream.next();
      for (const jobId of [a, b, 'of nobody']) jobs.bus.wake('jobChanged', jobId);
      expect((await next).value?.id).toBe(b);
      await stream.return?.();
    });
  });

  test('a reader that is more than 10,000 jobs behind is let go', async () => {
    await withJobs(async (jobs) => {
      runningJob(jobs);
      const stream = watchJobs(jobs, () => true);
      await stream.next();
      for (let i = 0; i <= 10_000; i += 1) jobs.bus.wake('jobChanged', `job ${i}`);
      expect((await stream.next()).done).toBe(true);
    });
  });
});

describe('every stream', () => {
  test('of a job that there is not is NOT_FOUND at once', async () => {
    await withJobs(async (jobs) => {
      for (const watch of [watchEvents, watchProgress, watchLogs]) {
        expect(() => watch(jobs, 'nothing', 0)).toThrow(expect.objectContaining({ code: 'NOT_FOUND' }));
      }
    });
  });

  test('that is left, before, while or after it waits, ends, and nothing listens for it any more', async () => {
    await withJobs(async (jobs) => {
      const bus = counted();
      const deps = { ...jobs, bus };
      const id = runningJob(jobs);
      const open = () => [
        watchEvents(deps, id, 0),
        watchEvents(deps, id, 2),
        watchProgress(deps, id),
        watchLogs(deps, id, 0),
        watchJobs(deps, () => true),
      ];
      for (const stream of open()) await stream.return?.();
      for (const stream of open()) {
        const pending = stream.next();
        await setImmediate();
        await stream.return?.();
        await pending;
        expect((await stream.next()).done).toBe(true);
      }
      expect(bus.listeners()).toBe(0);
      const ended = open()
        .map((stream) => collect<unknown>(stream))
        .slice(0, 4);
      await setImmediate();
      await end(deps, id);
      await Promise.all(ended);
      // The stream of all jobs stays open.
      expect(bus.listeners()).toBe(1);
    });
  });
});
