import { AsyncLocalStorage } from 'node:async_hooks';
import { writeSync } from 'node:fs';
import { type Logger, pino } from 'pino';
import type { Config } from './config.ts';

/** What belongs to the request that the running code serves: it stands in each log line and in each error. */
export const requestScope = new AsyncLocalStorage<{ requestId: string; userId?: string }>();

export type Log = Logger;

/** JSON lines on standard output. */
export function createLog({ logLevel }: Pick<Config, 'logLevel'>): Log {
  return pino({ level: logLevel, base: null, mixin: () => requestScope.getStore() ?? {} }, lossyOutput(1));
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
