import { setTimeout } from 'node:timers/promises';
import { eq, inArray } from 'drizzle-orm';
import type { Log } from '../log.ts';
import { readGpus } from '../system/gpus.ts';
import { type AttemptLimits, attemptLimits, publishMove, type RunningAttempt, runAttempt } from './attempt.ts';
import { identify, killGroup } from './executor/local.ts';
import type { JobKinds, JobServices } from './kinds.ts';
import { endAttempt } from './moves.ts';
import { claimNext, prepareSlots } from './queue.ts';
import { type Attempt, attempt, job } from './tables.ts';

/** The scheduler looks by itself this often, whatever wakes it. */
const lookMs = 100;
/** A process that does not die after SIGKILL hangs in a driver: the start does not wait for it any longer. */
const orphanMsMax = 10_000;

export interface Scheduler {
  /** Starts no more, suspends what runs, and resolves when every attempt has ended. */
  stop(): Promise<void>;
}

/** Recovers what an earlier server left, then starts jobs as slots become free. */
export async function startScheduler(
  services: JobServices,
  kinds: JobKinds,
  log: Log,
  limits: AttemptLimits = attemptLimits,
): Promise<Scheduler> {
  const { config, db, bus } = services;
  await recover(services, kinds, log);
  prepareSlots(db, config.slots);
  const gpuIds = ((await readGpus(config.childEnv.PATH ?? '')).gpus ?? []).map((gpu) => gpu.uuid);

  const running = new Map<string, RunningAttempt>();
  let state: 'open' | 'stopping' | 'stopped' = 'open';

  const look = () => {
    if (state === 'stopped') return;
    try {
      for (const { id } of db.select({ id: job.id }).from(job).where(eq(job.state, 'CANCELLING')).all()) running.get(id)?.stop('cancel');
      for (const one of running.values()) one.checkTime();
      for (let claimed = state === 'open' ? claimNext(db) : null; claimed; claimed = claimNext(db)) {
        // Two slots may share a GPU; CUDA refuses a list that names one twice.
        const devices = [...new Set(claimed.slots.flatMap((n) => gpuIds[n % gpuIds.length] ?? []))].join(',');
        const one = runAttempt(services, kinds, log, claimed, devices, limits);
        running.set(one.jobId, one);
        one.ended.then(() => {
          running.delete(one.jobId);
          look();
        });
        publishMove(services, claimed);
      }
    } catch (error) {
      // A locked database or a full disk passes; the next look tries again.
      log.error({ err: error }, 'the scheduler could not look at the queue');
    }
  };

  const timer = setInterval(look, lookMs);
  const off = bus.on('queueChanged', '', () => setImmediate(look));
  look();
  return {
    async stop() {
      if (state === 'open') state = 'stopping';
      off();
      for (const one of running.values()) one.stop('suspend');
      await Promise.all([...running.values()].map((one) => one.ended));
      clearInterval(timer);
      state = 'stopped';
    },
  };
}

/**
 * Attempts that a server which died left running: their process groups are killed, and only when they are gone are the attempts LOST
 * and their slots free.
 */
export async function recover({ db }: Pick<JobServices, 'db'>, kinds: JobKinds, log: Log): Promise<void> {
  for (const left of db
    .select()
    .from(attempt)
    .where(inArray(attempt.state, ['STARTING', 'RUNNING']))
    .all()) {
    const { jobId, number: attemptNumber } = left;
    if (!(await killOrphan(left))) log.error({ jobId, attemptNumber, pid: left.pid }, 'a process of the last server cannot be killed');
    const move = endAttempt(db, kinds, jobId, attemptNumber, { state: 'LOST', failure: null });
    log.warn({ jobId, attemptNumber, state: move?.job.state }, 'an attempt was lost with the last server');
  }
}

/** False when it is still there. A later process with the same pid is left alone. */
export async function killOrphan({ pid, pidStart, bootId }: Pick<Attempt, 'pid' | 'pidStart' | 'bootId'>): Promise<boolean> {
  if (pid === null || pidStart === null) return true;
  const isThere = () => {
    const now = identify(pid);
    return now !== null && now.pidStart === pidStart && now.bootId === bootId;
  };
  const startedAt = performance.now();
  while (isThere()) {
    if (performance.now() - startedAt > orphanMsMax) return false;
    killGroup(pid, 'SIGKILL');
    await setTimeout(20);
  }
  return true;
}
