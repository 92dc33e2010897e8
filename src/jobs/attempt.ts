import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Log } from '../log.ts';
import { type Child, identify, startChild } from './executor/local.ts';
import { type AttemptContext, JobFailure, type JobKinds, type JobServices, type Launch, type Outcome } from './kinds.ts';
import { type JobLog, openLog } from './logs.ts';
import { endAttempt, type Move, recordProcess } from './moves.ts';
import { type Event, exitCodes, type Phase, PROTOCOL_VERSION, parseEventLine, phases } from './protocol.ts';
import { recordEvents, untilWritten } from './record.ts';
import { endingOf, type Failure, isFinal, notStarted, type Seen, type StopReason } from './states.ts';
import type { Attempt, Job } from './tables.ts';
import { newestCheckpoint, removeAttempts, tidyWork, workDirOf } from './workFolders.ts';

/** How long an attempt may stand still, and how long it has to obey. */
export interface AttemptLimits {
  phases: Record<Phase, { stallMsMax: number }>;
  /** After a stop was asked for: until SIGTERM, and from there until SIGKILL. */
  ladderMs: Record<StopReason, readonly [number, number]>;
  /** See ChildRequest. */
  lastLinesMs?: number;
}

export const attemptLimits: AttemptLimits = {
  phases,
  ladderMs: { cancel: [30_000, 10_000], suspend: [15_000, 5_000], hang: [0, 10_000], timeLimit: [0, 10_000] },
};

/** Events that a job may tell for good: a child that tells without end must not fill the disk. */
const eventsMax = 100_000;

export interface RunningAttempt {
  jobId: string;
  stop(reason: StopReason): void;
  /** Stops it when it has stood still, or has run, for too long. */
  checkTime(): void;
  /** Resolves when the attempt's end is committed and published. */
  ended: Promise<void>;
}

/** Tells the rest of the server of a committed move. */
export function publishMove({ bus }: Pick<JobServices, 'bus'>, { job, event, also }: Move): void {
  bus.publish('jobEvent', job.id, event);
  bus.publish('jobChanged', '', { jobId: job.id });
  bus.publish('queueChanged', '', null);
  for (const move of also) publishMove({ bus }, move);
}

/** Runs a claimed attempt to its end. `devices` is its CUDA_VISIBLE_DEVICES. */
export function runAttempt(
  services: JobServices,
  kinds: JobKinds,
  log: Log,
  claimed: { job: Job; attempt: Attempt },
  devices: string,
  limits: AttemptLimits,
): RunningAttempt {
  const { config, db, bus } = services;
  const { id: jobId } = claimed.job;
  const { number } = claimed.attempt;
  const kind = kinds[claimed.job.kind];
  const workDir = workDirOf(config.dataDir, jobId, number);

  const seen: Seen = { done: null, error: null, exitCode: null, signal: null, stopped: null, refused: null };
  const outcome: Outcome = { result: {}, artifacts: [], gates: [] };
  let context: AttemptContext | null = null;
  /** While its process runs. */
  let child: Child | null = null;
  const asked = new Set<StopReason>();
  const timers: NodeJS.Timeout[] = [];
  const startedAt = performance.now();
  let phase: Phase = 'start';
  let step = -1;
  let movedAt = startedAt;

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
        bus.publish('jobChanged', '', { jobId });
        break;
      case 'phase':
        moved(event.phase, 0);
        break;
      case 'batch':
        moved(event.phase, event.step);
        bus.publish('jobProgress', jobId, event);
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
    if (seen.refused) return;
    const events: Event[] = [];
    for (const line of lines) {
      if (line === '') continue;
      const event = parseEventLine(line);
      if ('problem' in event) writeLog('stderr', [`A line of the job's child was dropped: ${event.problem}`]);
      else if (event.job === jobId && event.attempt === number) events.push(event);
    }
    const rows = await untilWritten(() => recordEvents(db, jobId, number, events));
    for (const row of rows) bus.publish('jobEvent', jobId, row);
    if ((rows.at(-1)?.seq ?? 0) > eventsMax) throw new JobFailure('LIMIT_EXCEEDED', `The job told more than ${eventsMax} events.`);
    for (const event of events) onEvent(event);
  };

  const runChild = async ({ command, args, env, spec }: Launch, writeLog: WriteLog): Promise<void> => {
    const started = startChild(
      {
        command,
        args,
        cwd: workDir,
        env: { ...config.childEnv, TMPDIR: workDir, CUDA_VISIBLE_DEVICES: devices, ...env },
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
    movedAt = performance.now();
    const { pid } = started;
    if (pid !== null) {
      const process = { pid, pidStart: null, bootId: null, ...identify(pid) };
      await untilWritten(() => recordProcess(db, jobId, number, process)).catch(kill);
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
        const line = jobLog?.write({ at: Date.now(), attemptNumber: number, stream, text });
        if (line) bus.publish('jobLog', jobId, line);
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
      // An attempt that was stopped by now does not start.
      if (!seen.stopped) await runChild(launch, writeLog);
      if (seen.done === 'ok' && seen.exitCode === exitCodes.OK) register = await kind.finish(services, context, outcome);
    } catch (error) {
      fail(error);
    }
    for (const timer of timers) clearTimeout(timer);
    jobLog?.close();
    const end = () => endAttempt(db, kinds, jobId, number, { ...endingOf(seen), exitCode: seen.exitCode, signal: seen.signal }, register);
    const move = await untilWritten(end).catch((error: unknown) => {
      // What it made could not be registered.
      fail(error);
      return untilWritten(end);
    });
    if (!move) return;
    publishMove(services, move);
    // Of a job that was cancelled while it waited, the sweeper does it.
    if (isFinal(move.job.state)) await tidyWork(services, move.job).catch(() => {});
  };

  const ended = run().catch((error: unknown) => {
    log.error({ err: error, jobId, attemptNumber: number }, 'the end of an attempt could not be recorded');
  });
  return {
    jobId,
    stop,
    checkTime() {
      const now = performance.now();
      if (now - startedAt > kind.timeLimitMs) stop('timeLimit');
      else if (child && now - movedAt > limits.phases[phase].stallMsMax) stop('hang');
    },
    ended,
  };
}

type WriteLog = (stream: 'stdout' | 'stderr', texts: string[]) => void;

const defect: Failure = { code: 'INTERNAL', message: 'The job failed by a defect of Whetstone. The server log tells more.' };
