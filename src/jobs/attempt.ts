import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { passingKind } from '../db.ts';
import type { Log } from '../log.ts';
import { placingBlobs } from '../storage/blobs.ts';
import { hasRoom } from '../storage/disk.ts';
import type { GpuShare } from '../system/gpus.ts';
import { traceAttempt } from './attemptTrace.ts';
import { type ChildHandle, identify, startChild } from './executor/local.ts';
import {
  type AttemptContext,
  AttemptCrash,
  type AttemptOutcome,
  JobFailure,
  type JobKinds,
  type JobServices,
  type Launch,
} from './kinds.ts';
import { type JobLog, openLog } from './logs.ts';
import { endAttempt, type Move, recordProcess } from './moves.ts';
import { type Event, exitCodes, type Phase, PROTOCOL_VERSION, parseEventLine, phases } from './protocol.ts';
import { diskFullCode, diskIsFull, lackOf, recordEvents, untilWritten } from './record.ts';
import { backoffMs, endingOf, type Failure, isFinal, notStarted, type Seen, type StopReason } from './states.ts';
import type { Attempt, Job } from './tables.ts';
import { newestCheckpoint, removeAttempts, tidyWork, workDirOf } from './workFolders.ts';

/** How long an attempt may stand still, and how long it has to obey. */
export interface AttemptLimits {
  phases: Record<Phase, { stallMsMax: number }>;
  /** After a stop was asked for: until SIGTERM, and from there until SIGKILL. */
  ladderMs: Record<StopReason, readonly [number, number]>;
  /** See ChildRequest. */
  lastLinesMs?: number;
  backoffMs: (n: number) => number;
}

export const attemptLimits: AttemptLimits = {
  phases,
  backoffMs,
  ladderMs: { cancel: [30_000, 10_000], suspend: [15_000, 5_000], hang: [0, 10_000], timeLimit: [0, 10_000] },
};

/** Events that a job may tell for good: a child that tells without end must not fill the disk. */
const eventsMax = 100_000;

export interface RunningAttempt {
  jobId: string;
  stop(reason: StopReason): void;
  /** Stops it when it has stood still, or has run, for too long. */
  checkTime(): void;
  /** Kills it and no longer waits until its end can be written: the next server finds it LOST. */
  abandon(): void;
  /** Resolves when the attempt's end is committed and announced, or it was abandoned. */
  ended: Promise<void>;
}

/** Tells the rest of the server of a committed move. */
export function announceMove(services: Pick<JobServices, 'bus' | 'metrics'>, { job, event, also }: Move): void {
  const { bus, metrics } = services;
  metrics.moved(job, event);
  bus.wake('jobEvent', job.id);
  // The end of a child may be an event of its parent.
  if (job.parentId) bus.wake('jobEvent', job.parentId);
  bus.wake('jobChanged', job.id);
  bus.wake('queueChanged', '');
  for (const move of also) announceMove(services, move);
}

/** Runs a claimed attempt to its end. */
export function runAttempt(
  services: JobServices,
  kinds: JobKinds,
  log: Log,
  claimed: { job: Job; attempt: Attempt },
  gpu: GpuShare,
  limits: AttemptLimits,
): RunningAttempt {
  const { config, db, bus, progress } = services;
  const { id: jobId } = claimed.job;
  const { number } = claimed.attempt;
  const kind = kinds[claimed.job.kind];
  const workDir = workDirOf(config.dataDir, jobId, number);
  const trace = traceAttempt(services, claimed);

  const seen: Seen = { done: null, error: null, exitCode: null, signal: null, stopped: null, refused: null, crash: null, lack: null };
  const outcome: AttemptOutcome = { result: {}, artifacts: [], gates: [] };
  let context: AttemptContext | null = null;
  /** While its process runs. */
  let child: ChildHandle | null = null;
  const asked = new Set<StopReason>();
  const timers: NodeJS.Timeout[] = [];
  const claimedAt = performance.now();
  const abandoned = new AbortController();
  let phase: Phase = 'start';
  let step = -1;
  let movedAt = claimedAt;
  /** Time that the server itself took for what the child said, in all, and how many such pieces of work are running. */
  let ownMs = 0;
  let ownWork = 0;

  /** The child may stand still for as long as the server does not read: a full disk or a slow one is no hang. */
  const uncounted = async <T>(work: () => Promise<T>): Promise<T> => {
    const from = performance.now();
    ownWork += 1;
    try {
      return await work();
    } finally {
      ownWork -= 1;
      const ms = performance.now() - from;
      ownMs += ms;
      movedAt += ms;
    }
  };
  const written = <T>(write: () => T): Promise<T> => uncounted(() => untilWritten(write, abandoned.signal));
  /** A job that is to stop does not wait for room: cancelling it may be what makes room. */
  const toldToStop = (error: unknown) => seen.stopped !== null && passingKind(error) === 'FULL';

  const stop = (reason: StopReason) => {
    if (asked.has(reason)) return;
    asked.add(reason);
    // The first reason is why it ends; a later one may be in more of a hurry.
    seen.stopped ??= reason;
    if (reason === 'cancel' || reason === 'suspend') child?.command(reason);
    const [termMs, killMs] = limits.ladderMs[reason];
    timers.push(
      setTimeout(() => child?.kill('SIGTERM'), termMs),
      setTimeout(() => child?.kill('SIGKILL'), termMs + killMs),
    );
  };

  const fail = (error: unknown) => {
    seen.lack ??= lackOf(error);
    if (seen.lack) return;
    if (error instanceof AttemptCrash) {
      seen.crash = error.message;
      return;
    }
    if (!(error instanceof JobFailure)) log.error({ err: error, jobId }, 'a job failed by a defect');
    const { code, message } = error instanceof JobFailure ? error : defect;
    seen.refused = { code, message };
  };

  const moved = (nextPhase: Phase, nextStep: number) => {
    if (nextPhase !== phase || nextStep !== step) movedAt = performance.now();
    phase = nextPhase;
    step = nextStep;
  };

  /** What the server does about an event, beside storing it. */
  const onEvent = (event: Event): void => {
    switch (event.type) {
      case 'hello':
        bus.wake('jobChanged', jobId);
        break;
      case 'phase':
        moved(event.phase, 0);
        break;
      case 'batch':
        moved(event.phase, event.step);
        progress.set(jobId, event);
        bus.wake('jobProgress', jobId);
        break;
      case 'heartbeat':
        moved(event.phase, event.step);
        break;
      case 'artifact':
        outcome.artifacts.push(event);
        break;
      case 'gate':
        outcome.gates.push(event);
        break;
      case 'error': {
        const { code, retryable, message, hint, details } = event;
        seen.error = { code, retryable, message: [message, hint, ...details].filter(Boolean).join('\n') };
        if (code === diskFullCode) seen.lack = { ...diskIsFull, message: [diskIsFull.message, ...details].join('\n') };
        break;
      }
      case 'done':
        seen.done = event.status;
        outcome.result = event.result;
        break;
    }
  };

  const onLines = async (lines: string[], writeLog: WriteLog): Promise<void> => {
    // It is being killed for what it said before.
    if (seen.refused || seen.lack) return;
    const events: Event[] = [];
    for (const line of lines) {
      if (line === '') continue;
      const event = parseEventLine(line);
      if ('problem' in event) writeLog('stderr', [`A line of the job's child was dropped: ${event.problem}`]);
      else if (event.job === jobId && event.attempt === number) events.push(event);
    }
    const rows = await uncounted(() => untilWritten(() => recordEvents(db, jobId, number, events), abandoned.signal, toldToStop));
    if (rows.length > 0) bus.wake('jobEvent', jobId);
    if ((rows.at(-1)?.seq ?? 0) > eventsMax) throw new JobFailure('LIMIT_EXCEEDED', `The job told more than ${eventsMax} events.`);
    for (const event of events) {
      onEvent(event);
      trace.said(event);
    }
  };

  /** A job that asks for CUDA does not run without; one that takes what is there says that it has no GPU. */
  const checkDevice = async ({ spec }: Launch): Promise<void> => {
    const { missing, maybe } = gpu;
    if (missing === null || !('device' in spec)) return;
    if (spec.device === 'cuda') {
      const todo = "Look at the GPU's driver, or start the job with the device AUTO.";
      throw new JobFailure('DEVICE_UNAVAILABLE', `The job asks for CUDA, but no GPU is known: ${missing} ${todo}`);
    }
    if (spec.device !== 'auto' || !maybe) return;
    const message = `No GPU is known, so this attempt runs on the CPU: ${missing}`;
    const warning = {
      v: PROTOCOL_VERSION,
      job: jobId,
      attempt: number,
      n: 1,
      t: Date.now(),
      type: 'warning',
      code: 'NO_GPU',
      message,
    } as const;
    if ((await written(() => recordEvents(db, jobId, number, [warning]))).length > 0) bus.wake('jobEvent', jobId);
  };

  const superviseChild = async ({ command, args, env, spec, nice }: Launch, writeLog: WriteLog): Promise<void> => {
    const started = startChild(
      {
        command,
        args,
        cwd: workDir,
        env: { ...config.childEnv, TMPDIR: workDir, CUDA_VISIBLE_DEVICES: gpu.devices, ...trace.env, ...env },
        nice,
        lastLinesMs: limits.lastLinesMs,
        specLine: { v: PROTOCOL_VERSION, job: jobId, attempt: number, workDir, spec },
      },
      {
        events: (lines) => onLines(lines, writeLog).catch(kill),
        log: writeLog,
      },
    );
    const kill = (error: unknown) => {
      fail(error);
      started.kill('SIGKILL');
    };
    child = started;
    trace.said({ type: 'phase', phase: 'start', t: Date.now() });
    movedAt = performance.now();
    const { pid } = started;
    if (pid !== null) {
      const process = { pid, pidStart: null, bootId: null, ...identify(pid) };
      await written(() => recordProcess(db, jobId, number, process)).catch(kill);
    }
    const { exitCode, signal, error } = await started.ended;
    child = null;
    Object.assign(seen, { exitCode, signal });
    if (error) seen.refused = notStarted;
  };

  const run = async (): Promise<void> => {
    let jobLog: JobLog | undefined;
    const writeLog: WriteLog = (stream, texts) => {
      for (const text of texts) {
        if (jobLog?.write({ at: Date.now(), attemptNumber: number, stream, text })) bus.wake('jobLog', jobId);
      }
    };
    let register: Awaited<ReturnType<typeof kind.finish>> | undefined;
    try {
      await mkdir(workDir, { recursive: true });
      jobLog = await openLog(config.dataDir, jobId);
      context = {
        job: claimed.job,
        attemptNumber: number,
        workDir,
        resumeFrom: await newestCheckpoint(services, claimed.job),
      };
      await removeAttempts(services, jobId, [workDir, dirname(context.resumeFrom ?? workDir)]);
      const launch = await kind.launch(services, context);
      await checkDevice(launch);
      // An attempt that was stopped by now does not start.
      if (!seen.stopped) await superviseChild(launch, writeLog);
      if (seen.done === 'ok' && seen.exitCode === exitCodes.OK) register = await kind.finish(services, context, outcome);
    } catch (error) {
      fail(error);
    }
    for (const timer of timers) clearTimeout(timer);
    jobLog?.close();
    progress.delete(jobId);
    // What a child dies of on a full disk (a signal, a defect of a library) does not say so.
    if (isUnclear(seen) && !hasRoom(services)) seen.lack = diskIsFull;
    // Half of its files would keep the disk full until the next attempt.
    if (seen.lack) await tidyWork(services, claimed.job).catch(() => {});
    const durationMs = Math.round(performance.now() - claimedAt);
    const end = () => {
      const { exitCode, signal } = seen;
      const how = { ...endingOf(seen), exitCode, signal, durationMs, backoffMs: limits.backoffMs };
      return endAttempt(db, kinds, jobId, number, how, register);
    };
    const move = await written(end).catch((error: unknown) => {
      if (abandoned.signal.aborted) throw error;
      // What it made could not be registered.
      fail(error);
      return written(end);
    });
    trace.ended(move);
    if (!move) return;
    announceMove(services, move);
    // Of a job that was cancelled while it waited, the sweeper does it.
    if (isFinal(move.job.state)) await tidyWork(services, move.job).catch(() => {});
  };

  const ended = trace
    .run(() => placingBlobs(run))
    .catch((error: unknown) => {
      log.error({ err: error, jobId, attemptNumber: number }, 'the end of an attempt could not be recorded');
    })
    .finally(() => trace.ended(null));
  return {
    jobId,
    stop,
    checkTime() {
      if (ownWork > 0) return;
      const now = performance.now();
      if (now - claimedAt - ownMs > kind.timeLimitMs) stop('timeLimit');
      else if (child && now - movedAt > limits.phases[phase].stallMsMax) stop('hang');
    },
    abandon() {
      child?.kill('SIGKILL');
      abandoned.abort();
    },
    ended,
  };
}

/** Whether it crashed, or ended by a defect. */
const isUnclear = (seen: Seen): boolean =>
  endingOf(seen).state === 'CRASHED' || (!seen.refused && seen.stopped === null && seen.exitCode === exitCodes.BUG);

type WriteLog = (stream: 'stdout' | 'stderr', texts: string[]) => void;

const defect: Failure = { code: 'INTERNAL', message: 'The job failed by a defect of Whetstone. The server log tells more.' };
