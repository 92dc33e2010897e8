/** Why the server takes no work: what `/ready` answers. */
import { sql } from 'drizzle-orm';
import type { Config } from './config.ts';
import type { Db } from './db.ts';
import { hasRoom } from './storage/disk.ts';

interface Services {
  config: Pick<Config, 'dataDir' | 'diskReserveBytes'>;
  db: Db;
  stopping: AbortSignal;
}

const reasons = {
  STOPPING: {
    holds: ({ stopping }: Services) => stopping.aborted,
    message: 'The server is stopping. Send requests to another one, or wait until it is started again.',
  },
  DATABASE_UNREADABLE: {
    holds: ({ db }: Services) => db.get(sql`SELECT count(*) FROM sqlite_master`) === undefined,
    message: 'The database cannot be read. Look whether the disk of the data folder is there and works, then start the server again.',
  },
  DISK_FULL: {
    holds: (services: Services) => !hasRoom(services),
    message: 'The disk of the data folder is too full for the database. Delete what is not needed, or free other space.',
  },
};

export const notReadyCodes = Object.keys(reasons);

export function whyNotReady(services: Services): { code: string; message: string }[] {
  return Object.entries(reasons).flatMap(([code, { holds, message }]) => {
    try {
      return holds(services) ? [{ code, message }] : [];
    } catch {
      return [{ code, message }];
    }
  });
}
