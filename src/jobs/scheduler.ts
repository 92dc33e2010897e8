import { and, eq, inArray, or } from 'drizzle-orm';
import type { Log } from '../log.ts';
import { stopMs, within } from '../stopTimes.ts';
import { hasRoom } from '../storage/disk.ts';
import type { GpuWatch } from '../system/gpus.ts';
import { type AttemptLimits, announceMove, attemptLimits, type RunningAttempt, runAttempt } from './attempt.ts';
import { isOrphan, killGroup } from './executor/local.ts';
import type { JobKinds, JobServices } from './kinds.ts';
import { endAttempt } from './moves.ts';
import { claimNext, prepareSlots } from './queue.ts';
import { lost } from './states.ts';
import { type Attempt, attempt, type Job, job } from './tables.ts';

/** The scheduler looks by itself this often, whatever wakes it. */
const lookMs = 100;

export interface Scheduler {
  /** Starts no more, suspends what runs, and resolves when every attempt has ended, or the time for that is over. */
  stop(): Promise<void>;
}

/** Recovers what an earlier server left, then starts jobs as slots become free. */
export function startScheduler(
  services: JobServices,
  kinds: JobKinds,
  log: Log,
  gpus: GpuWatch,
  limits: AttemptLimits = attemptLimits,
): Scheduler {
  const { config, db, bus } = services;
  prepareSlots(db, config.slots);

  /** Attempts of the last server whose processes have not gone yet. */
  let orphans = unended(db);
  const running = new Map<string, RunningAttempt>();
  let state: 'open' | 'stopping' | 'stopped' = 'open';
  /** What keeps jobs from being started: told once, not at each look. */
  let told: string | null = null;

  const tell = (problem: string | null, error?: unknown) => {
    if (problem !== null && problem !== told) log.error({ err: error }, problem);
    told = problem;
  };

  const look = () => {
    if (state === 'stopped') return;
    try {
      for (const { id, state } of toStop(db)) running.get(id)?.stop(state === 'CANCELLING' ? 'cancel' : 'suspend');
      for (const one of running.values()) one.checkTime();
      if (orphans.length > 0) orphans = recover(services, kinds, log, orphans);
      if (state !== 'open') return;
      if (!hasRoom(services)) return tell('The disk is too full to start jobs. They wait until there is room.');
      const claim = () => claimNext(db, kinds, gpus.state().known.gpus?.length);
      for (let claimed = claim(); claimed; claimed = claim()) {
        const one = runAttempt(services, kinds, log, claimed, gpus.of(claimed.slots), limits);
        running.set(one.jobId, one);
        one.ended.then(() => {
          running.delete(one.jobId);
          look();
        });
        announceMove(services, claimed);
      }
      tell(null);
    } catch (error) {
      // A locked database or a full disk passes; the next look tries again.
      tell(`The scheduler could not look at the queue: ${(error as Error).message}`, error);
    }
  };

  look();
  for (const { jobId, number: attemptNumber, pid } of orphans) {
    log.warn({ jobId, attemptNumber, pid }, 'A process of the last server is being killed. Its slot stays taken until it has gone.');
  }
  const timer = setInterval(look, lookMs);
  const off = bus.on('queueChanged', '', () => setImmediate(look));

  const stop = async () => {
    state = 'stopping';
    off();
    for (const one of running.values()) one.stop('suspend');
    await within(stopMs.jobs, Promise.all([...running.values()].map((one) => one.ended)), () => {
      for (const one of running.values()) {
        log.error({ jobId: one.jobId }, 'An attempt did not end in time. The next server continues its job.');
        one.abandon();
      }
    });
    clearInterval(timer);
    state = 'stopped';
  };
  let stopped: Promise<void> | undefined;
  return {
    stop() {
      stopped ??= stop();
      return stopped;
    },
  };
}

/** Jobs that are being cancelled, and those that are held while they run. */
const toStop = (db: JobServices['db']): Pick<Job, 'id' | 'state'>[] =>
  db
    .select({ id: job.id, state: job.state })
    .from(job)
    .where(or(eq(job.state, 'CANCELLING'), and(eq(job.state, 'RUNNING'), eq(job.held, true))))
    .all();

/** The attempts that a server which died has left. */
const unended = (db: JobServices['db']): Attempt[] =>
  db
    .select()
    .from(attempt)
    .where(inArray(attempt.state, ['STARTING', 'RUNNING']))
    .all();

/**
 * Ends attempts that a server which died has left. The process group of one that still runs is killed, and only when it has gone is the
 * attempt LOST and its slot free: one that hangs in a driver keeps the GPU too. Returns those; call it again with them.
 */
export function recover(services: JobServices, kinds: JobKinds, log: Log, left = unended(services.db)): Attempt[] {
  return left.filter((one) => {
    const { jobId, number: attemptNumber } = one;
    if (isOrphan(services.config.dataDir, one)) {
      killGroup(one.pid ?? undefined, 'SIGKILL');
      return true;
    }
    const move = endAttempt(services.db, kinds, jobId, attemptNumber, lost);
    if (move) announceMove(services, move);
    log.warn({ jobId, attemptNumber, state: move?.job.state }, 'an attempt was lost with the last server');
    return false;
  });
}
