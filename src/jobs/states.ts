/**
 * The states of jobs and attempts. Only `queue.ts` and `moves.ts` write them, each move in one immediate transaction.
 *
 *   JOB      QUEUED → RUNNING                     claimed: slots and attempt in the same transaction
 *            QUEUED → CANCELLED
 *            RUNNING → CANCELLING → CANCELLED     or SUCCEEDED or FAILED, when that came first
 *            RUNNING → SUCCEEDED | FAILED
 *            RUNNING → QUEUED                     the attempt was SUSPENDED, LOST or CRASHED, and may be repeated, after a back-off
 *                                                 where it was charged or the machine lacked something
 *            SUCCEEDED, FAILED and CANCELLED are final; retryJob makes a new job.
 *
 *   ATTEMPT  STARTING → RUNNING (hello) → one ending:
 *     SUCCEEDED  done{ok}, exit 0, and everything it made was accepted
 *     FAILED     exit 64 65 69 70, an error that is not retryable, a gate, the time limit,
 *                a program that is not there                                             job FAILED with that code
 *     CANCELLED  it ended after `cancel`, by itself or by the ladder                          job CANCELLED
 *     SUSPENDED  exit 75 after `suspend`, or killed by the drain                              job QUEUED, not charged
 *                the disk was full or the database could not be written                       job QUEUED, not charged, back-off
 *     LOST       the server died under it                                                     job QUEUED, not charged
 *                and so did the attempt before, and this one wrote no checkpoint: the job
 *                may be what kills the server                                                 job QUEUED, charged, back-off
 *     CRASHED    a signal, a hang, another exit code, 0 without done, a signal to a process
 *                that the server starts for it                                                job QUEUED, charged, back-off
 *
 * A job whose attempts are charged three times FAILED(POISON).
 */
import { exitCodes } from './protocol.ts';
import type { AttemptState, JobState } from './tables.ts';

/** A job whose attempts are charged this often is not tried again. */
export const crashesMax = 3;

/** Longest back-off. */
export const backoffMsMax = 300_000;

/** How long a job backs off that does so for the `n`th time in a row: 5, 20 and 80 seconds, then 5 minutes. */
export const backoffMs = (n: number): number => Math.min(backoffMsMax, 5000 * 4 ** (n - 1));

export const finalStates: JobState[] = ['SUCCEEDED', 'FAILED', 'CANCELLED'];

export const isFinal = (state: JobState): boolean => finalStates.includes(state);

export interface Failure {
  code: string;
  message: string;
}

/** Why the server stopped an attempt. */
export type StopReason = 'cancel' | 'suspend' | 'hang' | 'timeLimit';

/** All that was seen of an attempt that has ended. */
export interface Seen {
  done: 'ok' | 'cancelled' | 'suspended' | null;
  error: (Failure & { retryable: boolean }) | null;
  exitCode: number | null;
  signal: string | null;
  stopped: StopReason | null;
  /** The server could not start it, or refused what it made. */
  refused: Failure | null;
  /** What else had to end it, so that it is tried again: see AttemptCrash. */
  crash: string | null;
  /** What the machine lacked, such as room on the disk: the same attempt may succeed later. */
  lack: Failure | null;
}

export type AttemptEnding = Extract<AttemptState, 'SUCCEEDED' | 'FAILED' | 'CANCELLED' | 'SUSPENDED' | 'LOST' | 'CRASHED'>;

/** The ending of an attempt whose server died. */
export const lost = { state: 'LOST', failure: { code: 'LOST', message: 'The server died while the attempt ran.' } } as const;

export const notStarted: Failure = { code: 'START_FAILED', message: 'The program of the job could not be started. Run the set-up again.' };

/** Exit codes after which another attempt would end the same. */
const finalExits: Record<number, Failure> = {
  [exitCodes.SPECIFICATION]: { code: 'SPEC_INVALID', message: 'The job was specified wrongly.' },
  [exitCodes.DATA]: { code: 'DATA_INVALID', message: 'The data cannot be used.' },
  [exitCodes.UNAVAILABLE]: { code: 'UNAVAILABLE', message: 'This machine lacks something that the job needs.' },
  [exitCodes.BUG]: { code: 'INTERNAL', message: 'The job failed by a defect of Whetstone. Its log tells more.' },
  // POSIX: what `nice` and the shell exit with when the program cannot be run, or is not there.
  126: notStarted,
  127: notStarted,
};

/** Failures by what the job works on: another attempt would meet them again. */
const inputFaults = [
  'DATA_INVALID',
  'MODEL_INVALID',
  'MODEL_UNSAFE',
  'WEIGHTS_INVALID',
  'LIMIT_EXCEEDED',
  'LABELS_INVALID',
  'PREPROCESS_INVALID',
  'DIVERGED',
  'BUDGET_NOT_REACHED',
];

export const isInputFault = (code: string | null | undefined): boolean => inputFaults.includes(code ?? '');

/** Whether a model that a job made did not pass its gate. */
export const isGateFailure = (code: string | null): boolean => code === 'GATE_FAILED' || code === 'BUDGET_NOT_REACHED';

/** Whether the same job may succeed later, when the machine, the load or the program is another. */
export const isRetryable = (code: string): boolean => code !== 'SPEC_INVALID' && !isInputFault(code);

/** How an attempt ended; the first row that fits counts. */
export function endingOf(seen: Seen): { state: AttemptEnding; failure: Failure | null } {
  const { done, error, exitCode, stopped, refused, crash, lack } = seen;
  if (refused) return { state: 'FAILED', failure: refused };
  if (lack) return { state: 'SUSPENDED', failure: lack };
  if (crash) return { state: 'CRASHED', failure: { code: 'CRASHED', message: crash } };
  if (done === 'ok' && exitCode === exitCodes.OK) return { state: 'SUCCEEDED', failure: null };
  if (stopped === 'timeLimit')
    return { state: 'FAILED', failure: { code: 'TIME_LIMIT', message: 'The job took longer than its time limit.' } };
  const exit = exitCode === null ? undefined : finalExits[exitCode];
  if (error && (exit || !error.retryable)) return { state: 'FAILED', failure: { code: error.code, message: error.message } };
  if (exit) return { state: 'FAILED', failure: exit };
  if (stopped === 'cancel') return { state: 'CANCELLED', failure: null };
  if (stopped === 'suspend') return { state: 'SUSPENDED', failure: null };
  return { state: 'CRASHED', failure: { code: 'CRASHED', message: describeCrash(seen) } };
}

function describeCrash({ exitCode, signal, stopped, error }: Seen): string {
  if (stopped === 'hang') return 'The job stood still for too long and was killed.';
  if (error) return error.message;
  if (signal) return `The process of the job was killed by ${signal}.`;
  return exitCode === 0 ? 'The process of the job ended without a result.' : `The process of the job ended with exit code ${exitCode}.`;
}

/**
 * Whether an attempt counts as one of the crashes that a job may have. `previous` is how the attempt before it ended; one that
 * wrote a checkpoint has got further than that.
 */
export const isCharged = (
  state: AttemptEnding,
  { previous, wroteCheckpoint }: { previous: AttemptState | undefined; wroteCheckpoint: boolean },
): boolean => state === 'CRASHED' || (state === 'LOST' && previous === 'LOST' && !wroteCheckpoint);

/** Where a job goes when an attempt has ended; `charged` counts its charged attempts, this one included. */
export function jobAfter(
  state: Extract<JobState, 'RUNNING' | 'CANCELLING'>,
  ending: { state: AttemptEnding; failure: Failure | null },
  charged: number,
): { state: JobState; failure: Failure | null } {
  if (ending.state === 'SUCCEEDED' || ending.state === 'FAILED') return { state: ending.state, failure: ending.failure };
  if (ending.state === 'CANCELLED' || state === 'CANCELLING') return { state: 'CANCELLED', failure: null };
  if (charged >= crashesMax) {
    const message = `${charged} attempts crashed; the last one: ${ending.failure?.message ?? 'its process ended.'}`;
    return { state: 'FAILED', failure: { code: 'POISON', message } };
  }
  return { state: 'QUEUED', failure: null };
}
