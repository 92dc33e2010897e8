import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync, readlinkSync, realpathSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import { EVENT_LINE_BYTES_MAX, PROTOCOL_VERSION, type SpecLine } from '../protocol.ts';

export interface ChildRequest {
  command: string;
  args: string[];
  cwd: string;
  env: Record<string, string>;
  specLine: SpecLine;
  /** Of nice(1): below the server's priority unless told otherwise. */
  nice?: number;
  /** A stream that stays silent for this long after its exit is closed, whoever holds it open; 10 s unless told otherwise. */
  lastLinesMs?: number;
}

export interface ChildListener {
  /** Lines of fd 3, in order. While it is pending no more are read. It must not reject. */
  events(lines: string[]): Promise<void>;
  log(stream: 'stdout' | 'stderr', lines: string[]): void;
}

export interface Exit {
  exitCode: number | null;
  signal: string | null;
  /** Why no process could be made. */
  error: Error | null;
}

export interface ChildHandle {
  pid: number | null;
  command(command: 'cancel' | 'suspend'): void;
  /** Signals the child's whole process group, unless the child has gone. */
  kill(signal: 'SIGTERM' | 'SIGKILL'): void;
  /** Resolves when it has gone and its last line was handled. */
  ended: Promise<Exit>;
}

/** Characters of a log line that are kept. */
const logLineMax = 4000;
/** Lines that are handled at a time: the server does other things in between. */
const linesMax = 100;

/** Starts a child process in a group of its own and speaks the protocol with it. */
export function startChild(
  { command, args, cwd, env, specLine, nice = 10, lastLinesMs = 10_000 }: ChildRequest,
  listener: ChildListener,
): ChildHandle {
  const child: ChildProcess = spawn('nice', ['-n', String(nice), command, ...args], {
    cwd,
    env,
    stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
    detached: true,
  });
  const { pid } = child;
  let gone = false;
  const exit = new Promise<Exit>((resolve) => {
    child.once('error', (error) => resolve({ exitCode: null, signal: null, error }));
    child.once('exit', (exitCode, signal) => {
      gone = true;
      // What it left behind in its group would hold its streams open, and a GPU.
      killGroup(pid, 'SIGKILL');
      resolve({ exitCode, signal, error: null });
    });
  });
  if (pid === undefined) return { pid: null, command() {}, kill() {}, ended: exit };

  const [stdin, stdout, stderr, events] = child.stdio as unknown as [Writable, Readable, Readable, Readable];
  // A child that has gone does not read: its exit says so.
  stdin.on('error', () => {});
  stdin.write(`${JSON.stringify(specLine)}\n`);
  const silence = { exit, silentMsMax: lastLinesMs };
  const lastLine = Promise.all([
    readLines(stdout, logLineMax, (lines) => listener.log('stdout', lines), silence),
    readLines(stderr, logLineMax, (lines) => listener.log('stderr', lines), silence),
    readLines(events, EVENT_LINE_BYTES_MAX, (lines) => listener.events(lines), silence),
  ]);
  return {
    pid,
    command: (name) => stdin.write(`${JSON.stringify({ v: PROTOCOL_VERSION, command: name })}\n`),
    kill(signal) {
      if (!gone) killGroup(pid, signal);
    },
    ended: exit.then(async (how) => {
      await lastLine;
      return how;
    }),
  };
}

export function killGroup(pid: number | undefined, signal: 'SIGTERM' | 'SIGKILL'): void {
  if (!pid) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // It has gone.
  }
}

/**
 * Calls `each` with the lines of a stream; what is beyond `charactersMax` of a line is cut off, so that memory stays bounded. A process
 * that has left the child's group may hold the stream open: after the child's exit it is closed when it has been silent for a while.
 */
async function readLines(
  stream: Readable,
  charactersMax: number,
  each: (lines: string[]) => Promise<void> | void,
  { exit, silentMsMax }: { exit: Promise<unknown>; silentMsMax: number },
): Promise<void> {
  let rest = '';
  let gone = false;
  let busy = false;
  let timer: NodeJS.Timeout | undefined;
  const countSilence = () => {
    if (gone && !busy) timer = setTimeout(() => stream.destroy(), silentMsMax);
  };
  exit.then(() => {
    gone = true;
    countSilence();
  });
  stream.setEncoding('utf8');
  try {
    for await (const chunk of stream) {
      clearTimeout(timer);
      busy = true;
      const lines = (rest + chunk).split('\n');
      rest = (lines.pop() as string).slice(0, charactersMax + 1);
      const whole = lines.map((line) => line.slice(0, charactersMax + 1));
      for (let i = 0; i < whole.length; i += linesMax) {
        await each(whole.slice(i, i + linesMax));
        await setImmediate();
      }
      busy = false;
      countSilence();
    }
  } catch {
    // It was closed.
  }
  clearTimeout(timer);
  if (rest !== '') await each([rest]);
}

/**
 * What tells a process from a later one with the same pid: the boot and the time of its start. Null when it has ended, though nobody
 * may have collected it yet, and where the system has no /proc.
 */
export function identify(pid: number): { pidStart: string; bootId: string } | null {
  try {
    // Fields 3 and 22 of proc(5)'s stat, counted after the command name, which may hold spaces and parentheses.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? [];
    if (fields[0] === 'Z' || fields[0] === 'X') return null;
    return { pidStart: String(fields[19]), bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim() };
  } catch {
    return null;
  }
}

/** A process, as it was recorded when it was started. */
export interface ProcessRecord {
  pid: number | null;
  pidStart: string | null;
  bootId: string | null;
}

/**
 * Whether the process that a dead server of this data folder recorded still runs. Neither a later one with the same pid is meant, nor one
 * of the data folder that this is a copy of.
 */
export function isOrphan(dataDir: string, { pid, pidStart, bootId }: ProcessRecord): boolean {
  if (pid === null || pidStart === null) return false;
  const now = identify(pid);
  return now !== null && now.pidStart === pidStart && now.bootId === bootId && worksIn(pid, realpathSync(dataDir));
}

/** Whether a process works in a folder (a real path) or below it. True as well where another user's process does not let us know. */
function worksIn(pid: number, folder: string): boolean {
  try {
    return `${readlinkSync(`/proc/${pid}/cwd`)}/`.startsWith(`${folder}/`);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EACCES';
  }
}
