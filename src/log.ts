import { AsyncLocalStorage } from 'node:async_hooks';
import { writeSync } from 'node:fs';
import { isatty } from 'node:tty';
import { type Logger, pino } from 'pino';
import type { Config } from './config.ts';
import { activeSpan } from './tracing.ts';

/** What belongs to the request that the running code serves: it stands in each log line and in each error. */
export const requestScope = new AsyncLocalStorage<{ requestId: string; userId?: string }>();

export type Log = Logger;

/** By it a line and its trace are found from each other. */
function traceOf(): { traceId?: string } {
  const span = activeSpan.getStore();
  return span ? { traceId: span.traceId } : {};
}

/** JSON lines on standard output; short lines for a person where that is a terminal. */
export function createLog({ logLevel }: Pick<Config, 'logLevel'>): Log {
  const output = lossyOutput(1);
  const destination = isatty(1) ? { write: (line: string) => output.write(`${shortLine(line)}\n`) } : output;
  // A copy: pino writes the facts of the line into it.
  return pino({ level: logLevel, base: null, mixin: () => ({ ...requestScope.getStore(), ...traceOf() }) }, destination);
}

/** `14:05:09 WARN the message  name=value`: level INFO is left out, and ids of requests and users where nothing is wrong. */
function shortLine(line: string): string {
  const {
    level,
    time,
    msg = '',
    err,
    ...facts
  } = JSON.parse(line) as Record<string, unknown> & { level: number; time: number; err?: { stack: string } };
  if (level < 40) {
    delete facts.requestId;
    delete facts.userId;
    delete facts.traceId;
  }
  const severity = level === 30 ? '' : `${pino.levels.labels[level]?.toUpperCase()} `;
  const shown = Object.entries(facts).map(
    ([name, value]) => `  ${name}=${typeof value === 'string' && !/\s/.test(value) ? value : JSON.stringify(value)}`,
  );
  const text = `${new Date(time).toTimeString().slice(0, 8)} ${severity}${msg}${shown.join('')}${err ? `\n${err.stack}` : ''}`;
  // Names and paths in it come from users: nothing in them steers the terminal.
  return text.replace(/[^\P{Cc}\n]|\p{Cf}/gu, ' ');
}

/**
 * Writes lines to a file descriptor, and drops and counts those that it does not take: with its log on a full disk the server must keep running.
 * pino's own output would repeat the write for ever.
 */
export function lossyOutput(fd: number): { write(line: string): void } {
  let dropped = 0;
  /** The last line was written in part: the next must not become the rest of it. */
  let cut = false;
  const put = (text: string): boolean => {
    const bytes = Buffer.from(cut ? `\n${text}` : text);
    try {
      const written = writeSync(fd, bytes);
      cut = written < bytes.length;
      return !cut;
    } catch {
      return false;
    }
  };
  return {
    write(line) {
      if (dropped > 0) {
        const told = put(
          `${JSON.stringify({ level: 40, time: Date.now(), dropped, msg: 'log lines were dropped: standard output took none' })}\n`,
        );
        if (!told) {
          dropped += 1;
          return;
        }
        dropped = 0;
      }
      if (!put(line)) dropped += 1;
    },
  };
}
