import { type Bus, queueOf, readingFrom } from '../bus.ts';
import type { Db } from '../db.ts';
import { readEvents } from './events.ts';
import { findJob, requireJob } from './jobs.ts';
import { readLog } from './logs.ts';
import type { LogLine, Progress } from './progress.ts';
import { isFinal } from './states.ts';
import type { Job, JobEvent, JobState } from './tables.ts';

interface Deps {
  db: Db;
  bus: Bus;
  config: { dataDir: string };
}

const pageRows = 200;
/** Live events and log lines that a reader may be behind before the stored ones are read again. */
const queuedMax = 500;
/** Changed jobs that a reader of all jobs may be behind before its stream ends. */
const changedMax = 10_000;

const endsJob = ({ type, payloadJson }: JobEvent): boolean => type === 'STATE' && isFinal(payloadJson.state as JobState);

/**
 * The durable events of a job with a seq greater than `after`, without a gap, up to the one that ends it: first the stored ones, then
 * those of the bus. A reader that is further behind than the queue holds reads the rows again, so that it costs no memory. NOT_FOUND
 * without such a job.
 */
export function watchEvents({ db, bus }: Deps, jobId: string, after: number): AsyncIterableIterator<JobEvent, undefined> {
  requireJob(db, jobId);
  const live = bus.subscribe('jobEvent', jobId, queuedMax);
  async function* read(): AsyncGenerator<JobEvent, undefined> {
    let seq = after;
    try {
      for (;;) {
        const rows = readEvents(db, jobId, seq, pageRows);
        for (const row of rows) {
          yield row;
          seq = row.seq;
          if (endsJob(row)) return;
        }
        if (rows.length === pageRows) continue;
        // `after` at or behind the end: nothing will come.
        if (rows.length === 0 && isEnded(db, jobId)) return;
        for (let next = await live.next(); ; next = await live.next()) {
          if (next.done) return;
          if (next.value.seq > seq + 1) break;
          if (next.value.seq === seq + 1) {
            yield next.value;
            seq = next.value.seq;
          }
          if (endsJob(next.value)) return;
        }
      }
    } finally {
      live.return();
    }
  }
  return readingFrom(live, read());
}

const isEnded = (db: Db, jobId: string): boolean => {
  const row = findJob(db, jobId);
  return !row || isFinal(row.state);
};

/** Ticks of a running job: the latest only, none again, until the job ends. */
export function watchProgress({ db, bus }: Deps, jobId: string): AsyncIterableIterator<Progress, undefined> {
  requireJob(db, jobId);
  const ticks = queueOf<Progress | null>(1, (push) => {
    const offs = [bus.on('jobProgress', jobId, push), bus.on('jobEvent', jobId, (event) => endsJob(event) && push(null))];
    return () => {
      for (const off of offs) off();
    };
  });
  async function* read(): AsyncGenerator<Progress, undefined> {
    try {
      if (isEnded(db, jobId)) return;
      for await (const tick of ticks) {
        if (tick === null) return;
        yield tick;
      }
    } finally {
      ticks.return();
    }
  }
  return readingFrom(ticks, read());
}

/** The lines of a job's log behind line `after`, first the stored ones, until the job ends. */
export function watchLogs({ db, bus, config }: Deps, jobId: string, after: number): AsyncIterableIterator<LogLine, undefined> {
  requireJob(db, jobId);
  const live = queueOf<LogLine | null>(queuedMax, (push) => {
    const offs = [bus.on('jobLog', jobId, push), bus.on('jobEvent', jobId, (event) => endsJob(event) && push(null))];
    return () => {
      for (const off of offs) off();
    };
  });
  async function* read(): AsyncGenerator<LogLine, undefined> {
    let n = after;
    async function* stored(): AsyncGenerator<LogLine, undefined> {
      for await (const line of readLog(config.dataDir, jobId, n)) {
        yield line;
        n = line.n;
      }
    }
    try {
      // Asked before the file is read: a job may end meanwhile, with lines behind the end that was read.
      const ended = isEnded(db, jobId);
      yield* stored();
      if (ended) return;
      for await (const line of live) {
        if (line === null) return void (yield* stored());
        if (line.n <= n) continue;
        // What fell out of the queue stands in the file.
        if (line.n > n + 1) yield* stored();
        else {
          yield line;
          n = line.n;
        }
      }
    } finally {
      live.return();
    }
  }
  return readingFrom(live, read());
}

/**
 * Jobs as they are now, oldest first, then each job when it has changed. Changes of one job that a slow reader has not seen yet are
 * one: it gets the latest state, so never misses a last one.
 */
export function watchJobs({ db, bus }: Deps, now: Job[], matches: (job: Job) => boolean): AsyncIterableIterator<Job, undefined> {
  const changed = new Set<string>();
  const wake = queueOf<null>(1, (push) =>
    bus.on('jobChanged', '', ({ jobId }) => {
      changed.add(jobId);
      if (changed.size > changedMax) wake.return();
      else push(null);
    }),
  );
  async function* read(): AsyncGenerator<Job, undefined> {
    try {
      yield* now;
      for await (const _ of wake) {
        for (const jobId of changed) {
          changed.delete(jobId);
          const row = findJob(db, jobId);
          if (row && matches(row)) yield row;
        }
      }
    } finally {
      wake.return();
    }
  }
  return readingFrom(wake, read());
}
