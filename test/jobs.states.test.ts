import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { InputError } from '../src/errors.ts';
import type { JobKinds, JobServices } from '../src/jobs/kinds.ts';
import { cancelJob, endAttempt } from '../src/jobs/moves.ts';
import { setJobPriority } from '../src/jobs/priority.ts';
import type { Event } from '../src/jobs/protocol.ts';
import { claimNext, prepareSlots } from '../src/jobs/queue.ts';
import { recordEvents } from '../src/jobs/record.ts';
import { retryJob } from '../src/jobs/retry.ts';
import { recover } from '../src/jobs/scheduler.ts';
import { backoffMs, crashesMax, endingOf, isCharged, jobAfter, type Seen } from '../src/jobs/states.ts';
import type { JobState } from '../src/jobs/tables.ts';
import { createLog } from '../src/log.ts';
import { queuePosition } from '../src/system/system.ts';
import { nobody, submit, withJobs } from './support/jobs.ts';
import { kindsOf, scripted } from './support/kinds.ts';

const nothing: Seen = { done: null, error: null, exitCode: null, signal: null, stopped: null, refused: null, crash: null, lack: null };
const fatal = { code: 'DATA_INVALID', message: 'no images', retryable: false };
const passing = { code: 'IO', message: 'disk failed', retryable: true };
const fullDisk = { code: 'DISK_FULL', message: 'no room' };

describe('how an attempt ended', () => {
  const rows: [string, Partial<Seen>, string, string | null][] = [
    ['done and exit 0', { done: 'ok', exitCode: 0 }, 'SUCCEEDED', null],
    ['done and exit 0 after a cancel came too late', { done: 'ok', exitCode: 0, stopped: 'cancel' }, 'SUCCEEDED', null],
    ['done and exit 0 after a suspend came too late', { done: 'ok', exitCode: 0, stopped: 'suspend' }, 'SUCCEEDED', null],
    [
      'done, but what it made is refused',
      { done: 'ok', exitCode: 0, refused: { code: 'GATE_FAILED', message: '' } },
      'FAILED',
      'GATE_FAILED',
    ],
    ['the disk was full', { lack: fullDisk, exitCode: 74 }, 'SUSPENDED', 'DISK_FULL'],
    ['the disk was full when what it made was stored', { lack: fullDisk, done: 'ok', exitCode: 0 }, 'SUSPENDED', 'DISK_FULL'],
    ['the disk was full, and it was killed as a hang', { lack: fullDisk, stopped: 'hang', signal: 'SIGKILL' }, 'SUSPENDED', 'DISK_FULL'],
    ['it could not be started', { refused: { code: 'START_FAILED', message: '' } }, 'FAILED', 'START_FAILED'],
    ['the program is not there (exit 127)', { exitCode: 127 }, 'FAILED', 'START_FAILED'],
    ['the program cannot be run (exit 126)', { exitCode: 126 }, 'FAILED', 'START_FAILED'],
    ['the time limit', { stopped: 'timeLimit', signal: 'SIGTERM' }, 'FAILED', 'TIME_LIMIT'],
    ['the time limit, with a checkpoint on the way out', { stopped: 'timeLimit', exitCode: 75, done: 'cancelled' }, 'FAILED', 'TIME_LIMIT'],
    ['an error that is not retryable', { error: fatal, exitCode: 65 }, 'FAILED', 'DATA_INVALID'],
    ['an error that is not retryable, and a crash on the way out', { error: fatal, signal: 'SIGSEGV' }, 'FAILED', 'DATA_INVALID'],
    ['an error that is not retryable after a cancel', { error: fatal, exitCode: 65, stopped: 'cancel' }, 'FAILED', 'DATA_INVALID'],
    ['exit 64', { exitCode: 64 }, 'FAILED', 'SPEC_INVALID'],
    ['exit 65', { exitCode: 65 }, 'FAILED', 'DATA_INVALID'],
    ['exit 69', { exitCode: 69 }, 'FAILED', 'UNAVAILABLE'],
    ['exit 70', { exitCode: 70 }, 'FAILED', 'INTERNAL'],
    ['exit 69 with an error that calls itself retryable: its code', { exitCode: 69, error: passing }, 'FAILED', 'IO'],
    ['exit 75 after cancel', { done: 'cancelled', exitCode: 75, stopped: 'cancel' }, 'CANCELLED', null],
    ['killed by the ladder of a cancel', { signal: 'SIGKILL', stopped: 'cancel' }, 'CANCELLED', null],
    ['cancelled before it was started', { stopped: 'cancel' }, 'CANCELLED', null],
    ['exit 75 after suspend', { done: 'suspended', exitCode: 75, stopped: 'suspend' }, 'SUSPENDED', null],
    ['killed by the drain', { signal: 'SIGKILL', stopped: 'suspend' }, 'SUSPENDED', null],
    ['suspended before it was started', { stopped: 'suspend' }, 'SUSPENDED', null],
    ['done, but a process that looks at what it made was killed', { done: 'ok', exitCode: 0, crash: 'killed' }, 'CRASHED', 'CRASHED'],
    ['a process that prepares it was killed', { crash: 'killed' }, 'CRASHED', 'CRASHED'],
    ['a hang', { stopped: 'hang', signal: 'SIGTERM' }, 'CRASHED', 'CRASHED'],
    [
      'a hang that wrote its checkpoint when it was told to stop',
      { stopped: 'hang', exitCode: 75, done: 'suspended' },
      'CRASHED',
      'CRASHED',
    ],
    ['SEGV', { signal: 'SIGSEGV' }, 'CRASHED', 'CRASHED'],
    ['KILL', { signal: 'SIGKILL' }, 'CRASHED', 'CRASHED'],
    ['TERM from somebody else', { signal: 'SIGTERM' }, 'CRASHED', 'CRASHED'],
    ['exit 1', { exitCode: 1 }, 'CRASHED', 'CRASHED'],
    ['exit 74 with an error that is retryable', { exitCode: 74, error: passing }, 'CRASHED', 'CRASHED'],
    ['exit 75 that nobody asked for', { exitCode: 75, done: 'suspended' }, 'CRASHED', 'CRASHED'],
    ['exit 0 without done', { exitCode: 0 }, 'CRASHED', 'CRASHED'],
    ['done and another exit code', { done: 'ok', exitCode: 1 }, 'CRASHED', 'CRASHED'],
    ['done and a signal', { done: 'ok', signal: 'SIGKILL' }, 'CRASHED', 'CRASHED'],
  ];
  test.each(rows)('%s', (_name, seen, state, code) => {
    const ending = endingOf({ ...nothing, ...seen });
    expect([ending.state, ending.failure?.code ?? null]).toEqual([state, code]);
  });

  test.each<[Partial<Seen>, string]>([
    [{ stopped: 'hang', signal: 'SIGKILL' }, 'The job stood still for too long and was killed.'],
    [{ exitCode: 74, error: passing }, 'disk failed'],
    [{ signal: 'SIGSEGV' }, 'The process of the job was killed by SIGSEGV.'],
    [{ exitCode: 0 }, 'The process of the job ended without a result.'],
    [{ exitCode: 3 }, 'The process of the job ended with exit code 3.'],
  ])('a crash says what happened: %j', (seen, message) => {
    expect(endingOf({ ...nothing, ...seen }).failure?.message).toBe(message);
  });
});

describe('where its job goes', () => {
  const crash = { code: 'CRASHED', message: 'killed' };
  const rows: [string, Parameters<typeof jobAfter>, JobState, string | null][] = [
    ['SUCCEEDED', ['RUNNING', { state: 'SUCCEEDED', failure: null }, 0], 'SUCCEEDED', null],
    ['SUCCEEDED while it was being cancelled', ['CANCELLING', { state: 'SUCCEEDED', failure: null }, 0], 'SUCCEEDED', null],
    ['FAILED', ['RUNNING', { state: 'FAILED', failure: fatal }, 0], 'FAILED', 'DATA_INVALID'],
    ['FAILED while it was being cancelled', ['CANCELLING', { state: 'FAILED', failure: fatal }, 0], 'FAILED', 'DATA_INVALID'],
    ['CANCELLED', ['CANCELLING', { state: 'CANCELLED', failure: null }, 0], 'CANCELLED', null],
    ['SUSPENDED', ['RUNNING', { state: 'SUSPENDED', failure: null }, 0], 'QUEUED', null],
    ['SUSPENDED while it was being cancelled', ['CANCELLING', { state: 'SUSPENDED', failure: null }, 0], 'CANCELLED', null],
    ['LOST', ['RUNNING', { state: 'LOST', failure: null }, 2], 'QUEUED', null],
    ['LOST while it was being cancelled', ['CANCELLING', { state: 'LOST', failure: null }, 0], 'CANCELLED', null],
    ['CRASHED once', ['RUNNING', { state: 'CRASHED', failure: crash }, 1], 'QUEUED', null],
    ['CRASHED twice', ['RUNNING', { state: 'CRASHED', failure: crash }, crashesMax - 1], 'QUEUED', null],
    ['CRASHED three times', ['RUNNING', { state: 'CRASHED', failure: crash }, crashesMax], 'FAILED', 'POISON'],
    ['CRASHED while it was being cancelled', ['CANCELLING', { state: 'CRASHED', failure: crash }, 3], 'CANCELLED', null],
  ];
  test.each(rows)('%s', (_name, args, state, code) => {
    const next = jobAfter(...args);
    expect([next.state, next.failure?.code ?? null]).toEqual([state, code]);
  });
});

describe('what a job is charged', () => {
  test.each<[string, Parameters<typeof isCharged>, boolean]>([
    ['a crash', ['CRASHED', { previous: undefined, wroteCheckpoint: true }], true],
    ['the first death of the server', ['LOST', { previous: 'CRASHED', wroteCheckpoint: false }], false],
    ['the second in a row, which may be its own doing', ['LOST', { previous: 'LOST', wroteCheckpoint: false }], true],
    ['the second in a row, but it had got further', ['LOST', { previous: 'LOST', wroteCheckpoint: true }], false],
    ['a death after a drain', ['LOST', { previous: 'SUSPENDED', wroteCheckpoint: false }], false],
    ['a full disk', ['SUSPENDED', { previous: 'SUSPENDED', wroteCheckpoint: false }], false],
  ])('%s', (_name, args, charged) => expect(isCharged(...args)).toBe(charged));

  test('back-off grows to five minutes', () => {
    expect([1, 2, 3, 4, 5, 100].map(backoffMs)).toEqual([5000, 20_000, 80_000, 300_000, 300_000, 300_000]);
  });
});

/** What a job may do next. */
const legal: Record<JobState, JobState[]> = {
  QUEUED: ['RUNNING', 'CANCELLED'],
  RUNNING: ['CANCELLING', 'SUCCEEDED', 'FAILED', 'QUEUED'],
  CANCELLING: ['CANCELLED', 'SUCCEEDED', 'FAILED'],
  SUCCEEDED: [],
  FAILED: [],
  CANCELLED: [],
};

const slotCount = 2;
const importsMax = 2;

interface ModelJob {
  id: string;
  state: JobState;
  slots: -1 | 0 | 1;
  priority: number;
  attempt: number;
  crashes: number;
  /** Its last attempt ended with the server. */
  lost: boolean;
  retried: boolean;
}

/** What is expected, in the order in which the jobs were made. */
interface Model {
  jobs: ModelJob[];
}

interface Real extends JobServices {
  kinds: JobKinds;
  /** Jobs whose result was discarded, and is expected again. */
  undone: string[];
  redone: string[];
}

const isRunning = ({ state }: ModelJob) => state === 'RUNNING' || state === 'CANCELLING';

/** Which job is to start: said once more, over the whole queue and in plain words. */
function nextToStart({ jobs }: Model): ModelJob | undefined {
  const running = jobs.filter(isRunning);
  if (running.some((j) => j.slots === -1)) return undefined;
  const free = slotCount - running.filter((j) => j.slots === 1).length;
  const imports = running.filter((j) => j.slots === 0).length;
  const queue = jobs.filter((j) => j.state === 'QUEUED').sort((a, b) => b.priority - a.priority);
  for (const one of queue) {
    if (one.slots === -1) return running.length === 0 ? one : undefined;
    if (one.slots === 1 ? free > 0 : imports < importsMax) return one;
  }
  return undefined;
}

/** Everything that must hold whatever has happened. */
function check(model: Model, { db, undone, redone }: Real): void {
  const all = <T>(sql: string) => db.$client.prepare(sql).all() as T[];
  const jobs = all<{
    id: string;
    state: JobState;
    slotsNeeded: number;
    nextSeq: number;
    attemptNumber: number;
    failureCode: string | null;
  }>('SELECT * FROM job ORDER BY rowid');
  expect(jobs.map((j) => [j.state, j.attemptNumber])).toEqual(model.jobs.map((j) => [j.state, j.attempt]));

  const running = jobs.filter((j) => j.state === 'RUNNING' || j.state === 'CANCELLING');
  const held = all<{ n: number; jobId: string | null; attemptNumber: number | null }>('SELECT * FROM slot ORDER BY n');
  expect(held).toHaveLength(slotCount);
  for (const { id, slotsNeeded, attemptNumber } of running) {
    const mine = held.filter((s) => s.jobId === id);
    expect(mine).toHaveLength(slotsNeeded === -1 ? slotCount : slotsNeeded);
    for (const slot of mine) expect(slot.attemptNumber).toBe(attemptNumber);
  }
  for (const { jobId } of held.filter((s) => s.jobId !== null)) expect(running.map((j) => j.id)).toContain(jobId);
  if (running.some((j) => j.slotsNeeded === -1)) expect(running).toHaveLength(1);

  const events = all<{ jobId: string; seq: number; type: string; payloadJson: string }>('SELECT * FROM job_event ORDER BY jobId, seq');
  const attempts = all<{ jobId: string; number: number; state: string; charged: number; endedAt: number | null }>(
    'SELECT * FROM attempt ORDER BY jobId, number',
  );
  for (const [i, job] of jobs.entries()) {
    const told = events.filter((e) => e.jobId === job.id);
    expect(told.map((e) => e.seq)).toEqual(Array.from({ length: job.nextSeq - 1 }, (_, seq) => seq + 1));
    const states = told.filter((e) => e.type === 'STATE').map((e) => JSON.parse(e.payloadJson).state as JobState);
    expect(states[0]).toBe('QUEUED');
    expect(states.at(-1)).toBe(job.state);
    for (const [n, state] of states.slice(1).entries()) expect(legal[states[n] as JobState]).toContain(state);
    const last = told.at(-1) as { type: string; payloadJson: string };
    const isOver = legal[job.state].length === 0;
    if (isOver) expect(JSON.parse(last.payloadJson).state).toBe(job.state);
    expect(states.filter((s) => legal[s].length === 0)).toHaveLength(isOver ? 1 : 0);

    const mine = attempts.filter((a) => a.jobId === job.id);
    expect(mine.map((a) => a.number)).toEqual(Array.from({ length: job.attemptNumber }, (_, n) => n + 1));
    const live = mine.filter((a) => a.endedAt === null);
    expect(live.map((a) => a.number)).toEqual(running.includes(job) ? [job.attemptNumber] : []);
    for (const [n, { state, charged }] of mine.entries()) {
      expect(charged === 1).toBe(state === 'CRASHED' || (state === 'LOST' && mine[n - 1]?.state === 'LOST'));
    }
    const crashes = mine.filter((a) => a.charged).length;
    expect(crashes).toBe(model.jobs[i]?.crashes);
    expect(crashes).toBeLessThanOrEqual(crashesMax);
    expect(job.failureCode === 'POISON').toBe(crashes === crashesMax && job.state === 'FAILED');
    expect(undone.filter((id) => id === job.id)).toHaveLength(job.state === 'FAILED' || job.state === 'CANCELLED' ? 1 : 0);
    expect(redone.filter((id) => id === job.id)).toHaveLength(model.jobs[i]?.retried ? 1 : 0);
  }
}

/** A step of the walk. Those that need a job of some kind do nothing without one. */
interface Step {
  run(model: Model, real: Real): void | Promise<void>;
}

/** Its name is what a counterexample shows. */
const step = (name: string, run: Step['run']): Step => ({ run, [fc.toStringMethod]: () => name }) as Step;

const pickOf = (jobs: ModelJob[], pick: number): ModelJob | undefined => (jobs.length > 0 ? jobs[pick % jobs.length] : undefined);

const warning = (job: string, attempt: number): Event => ({ v: 1, job, attempt, n: 1, t: 0, type: 'warning', code: 'W', message: 'told' });

const submitStep = fc.record({ slots: fc.constantFrom<(-1 | 0 | 1)[]>(0, 1, 1, -1), priority: fc.constantFrom(-1, 0, 0, 1) }).map((asked) =>
  step(`submit(${JSON.stringify(asked)})`, (model, { db }) => {
    const { id } = submit(db, asked);
    model.jobs.push({ id, ...asked, state: 'QUEUED', attempt: 0, crashes: 0, lost: false, retried: false });
  }),
);

const claimStep = fc.constant(
  step('claim', (model, { db, kinds }) => {
    const expected = nextToStart(model);
    const positions = model.jobs.filter((j) => j.state === 'QUEUED').sort((a, b) => b.priority - a.priority);
    const rows = positions.map(({ id }) => db.$client.prepare('SELECT * FROM job WHERE id = ?').get(id) as never);
    expect(rows.map((row) => queuePosition(db, row))).toEqual(positions.map((_, i) => i + 1));
    const claimed = claimNext(db, kinds);
    expect(claimed?.job.id).toBe(expected?.id);
    if (!expected) return;
    expected.state = 'RUNNING';
    expected.attempt += 1;
  }),
);

/** Something that happens to a running attempt. */
const happens = (name: string, act: (job: ModelJob, real: Real) => void) =>
  fc.nat(9).map((pick) =>
    step(`${name}(${pick})`, (model, real) => {
      const job = pickOf(model.jobs.filter(isRunning), pick);
      if (job) act(job, real);
    }),
  );

const failure = { code: 'CRASHED', message: 'killed' };

const helloStep = happens('hello', ({ id, attempt }, { db }) => {
  const hello = { v: 1, job: id, attempt, n: 1, t: 0, type: 'hello', pid: 1, versions: {}, environment: {}, resumed: null } as const;
  recordEvents(db, id, attempt, [{ ...hello, device: { type: 'cpu', name: '', memoryBytes: null } }, warning(id, attempt)]);
  const sql = 'SELECT state FROM attempt WHERE jobId = ? AND number = ?';
  expect(db.$client.prepare(sql).get(id, attempt)).toEqual({ state: 'RUNNING' });
});

const crashStep = happens('crash', (job, { db, kinds }) => {
  job.crashes += 1;
  job.lost = false;
  const move = endAttempt(db, kinds, job.id, job.attempt, { state: 'CRASHED', failure, signal: 'SIGKILL', backoffMs: () => 0 });
  job.state = job.state === 'CANCELLING' ? 'CANCELLED' : job.crashes === crashesMax ? 'FAILED' : 'QUEUED';
  expect(move?.job.state).toBe(job.state);
});

const suspendStep = happens('suspend', (job, real) => {
  endAttempt(real.db, real.kinds, job.id, job.attempt, { state: 'SUSPENDED', failure: null, exitCode: 75 });
  job.lost = false;
  job.state = job.state === 'CANCELLING' ? 'CANCELLED' : 'QUEUED';
});

const finishStep = happens('finish', (job, real) => {
  const end = { state: 'SUCCEEDED', failure: null, exitCode: 0 } as const;
  const move = endAttempt(real.db, real.kinds, job.id, job.attempt, end, () => ({ made: job.id }));
  expect(move?.job.resultJson).toEqual({ made: job.id });
  job.state = 'SUCCEEDED';
});

const refuseStep = happens('refuse', (job, real) => {
  const end = { state: 'FAILED', failure: { code: 'GATE_FAILED', message: 'over the limit' }, exitCode: 0 } as const;
  expect(endAttempt(real.db, real.kinds, job.id, job.attempt, end)?.job.failureCode).toBe('GATE_FAILED');
  job.state = 'FAILED';
});

const restartStep = fc.constant(
  step('restart', (model, real) => {
    expect(recover(real, real.kinds, createLog({ logLevel: 'silent' }))).toEqual([]);
    prepareSlots(real.db, slotCount);
    real.db.$client.exec('UPDATE job SET notBefore = NULL');
    for (const job of model.jobs.filter(isRunning)) {
      if (job.lost) job.crashes += 1;
      job.lost = true;
      job.state = job.state === 'CANCELLING' ? 'CANCELLED' : job.crashes === crashesMax ? 'FAILED' : 'QUEUED';
    }
  }),
);

const cancelStep = fc.nat(9).map((pick) =>
  step(`cancel(${pick})`, (model, real) => {
    const job = pickOf(model.jobs, pick);
    if (!job) return;
    const cancel = () => cancelJob(real.db, real.kinds, nobody, job.id);
    if (legal[job.state].length === 0) return void expect(cancel).toThrow(InputError);
    if (job.state === 'CANCELLING') return void expect(cancel()).toBeNull();
    job.state = job.state === 'QUEUED' ? 'CANCELLED' : 'CANCELLING';
    expect(cancel()?.job.state).toBe(job.state);
  }),
);

const priorityStep = fc.tuple(fc.nat(9), fc.constantFrom(-2, 0, 2)).map(([pick, priority]) =>
  step(`priority(${pick}, ${priority})`, (model, real) => {
    const job = pickOf(model.jobs, pick);
    if (!job) return;
    const change = () => setJobPriority(real, nobody, job.id, { priority });
    if (legal[job.state].length === 0) return void expect(change).toThrow(InputError);
    job.priority = priority;
    expect(change().priority).toBe(priority);
  }),
);

const retryStep = fc.nat(9).map((pick) =>
  step(`retry(${pick})`, (model, real) => {
    const job = pickOf(model.jobs, pick);
    if (!job) return;
    const retry = () => retryJob(real, real.kinds, nobody, job.id);
    if (job.state !== 'FAILED' && job.state !== 'CANCELLED') return void expect(retry).toThrow(InputError);
    const { id, retryOfId, priority, slotsNeeded } = retry();
    expect([retryOfId, priority]).toEqual([job.id, job.priority]);
    model.jobs.push({ ...job, id, slots: slotsNeeded as 0, state: 'QUEUED', attempt: 0, crashes: 0, lost: false, retried: true });
  }),
);

/** A child that was taken for dead speaks, or ends: it must have no effect. */
const staleStep = fc.nat(9).map((pick) =>
  step(`speak from behind the fence(${pick})`, (model, { db, kinds }) => {
    const job = pickOf(
      model.jobs.filter((j) => j.attempt > (isRunning(j) ? 1 : 0)),
      pick,
    );
    if (!job) return;
    const number = isRunning(job) ? job.attempt - 1 : job.attempt;
    expect(recordEvents(db, job.id, number, [warning(job.id, number)])).toEqual([]);
    const register = () => expect.unreachable('an old attempt registered its result');
    expect(endAttempt(db, kinds, job.id, number, { state: 'SUCCEEDED', failure: null }, register)).toBeNull();
  }),
);

const steps = fc.oneof(
  { weight: 4, arbitrary: submitStep },
  { weight: 8, arbitrary: claimStep },
  { weight: 2, arbitrary: helloStep },
  { weight: 6, arbitrary: crashStep },
  { weight: 1, arbitrary: suspendStep },
  { weight: 2, arbitrary: finishStep },
  { weight: 1, arbitrary: refuseStep },
  { weight: 1, arbitrary: restartStep },
  { weight: 1, arbitrary: cancelStep },
  { weight: 1, arbitrary: priorityStep },
  { weight: 1, arbitrary: retryStep },
  { weight: 2, arbitrary: staleStep },
);

describe('whatever happens to jobs', () => {
  test('slots, order, states, events and charges stay as they must', { timeout: 120_000 }, async () => {
    await withJobs(async ({ db, config, bus }) => {
      // The order of writes is what counts here, not the disk.
      db.$client.pragma('synchronous = OFF');
      prepareSlots(db, slotCount);
      const ended = new Map<string, number>();
      const walk = fc.array(steps, { minLength: 60, maxLength: 90, size: 'max' });
      const property = fc.asyncProperty(walk, async (taken) => {
        db.$client.exec('UPDATE slot SET jobId = NULL, attemptNumber = NULL; DELETE FROM job_event; DELETE FROM attempt; DELETE FROM job');
        const undone: string[] = [];
        const redone: string[] = [];
        const kinds = kindsOf({ ...scripted, undo: (_tx, { id }) => void undone.push(id), redo: (_tx, { id }) => void redone.push(id) });
        const model: Model = { jobs: [] };
        const real = { db, config, bus, progress: new Map(), metrics: { moved() {} }, tracing: null, kinds, undone, redone };
        for (const { run } of taken) {
          await run(model, real);
          check(model, real);
        }
        for (const { state, crashes } of model.jobs) {
          const ending = crashes === crashesMax ? 'POISON' : state;
          ended.set(ending, (ended.get(ending) ?? 0) + 1);
        }
      });
      await fc.assert(property, { numRuns: 30 });
      // A walk that never gets to an ending would prove nothing about it.
      for (const ending of ['SUCCEEDED', 'CANCELLED', 'FAILED', 'POISON']) expect(ended.get(ending)).toBeGreaterThan(3);
    });
  });
});
