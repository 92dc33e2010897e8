import { AsyncLocalStorage } from 'node:async_hooks';
import { type Logger, pino } from 'pino';
import type { Config } from './config.ts';

/** What belongs to the request that the running code serves: it stands in each log line and in each error. */
export const requestScope = new AsyncLocalStorage<{ requestId: string; userId?: string }>();

export type Log = Logger;

/** JSON lines on standard output. */
export function createLog({ logLevel }: Pick<Config, 'logLevel'>): Log {
  return pino({ level: logLevel, base: null, mixin: () => requestScope.getStore() ?? {} });
}
