import { and, gte, sql } from 'drizzle-orm';
import type { Backups } from '../backup/schedule.ts';
import type { Config } from '../config.ts';
import { type Db, prepared } from '../db.ts';
import type { Supervisor } from '../deployments/supervise.ts';
import type { HostStats } from '../inference/stats.ts';
import { queuedSince } from '../jobs/metrics.ts';
import { job } from '../jobs/tables.ts';
import { diskSpace } from '../storage/disk.ts';

/** What alerts are made of, at one moment. Counts of deployments and restarts only grow. */
export interface ServerReading {
  /** Of the monotonic clock, in milliseconds. */
  at: number;
  /** How long the oldest job waits that was never started and that nobody holds; 0 when there is none. */
  queueWaitSeconds: number;
  /** Jobs that FAILED within the last hour. */
  failedJobs: number;
  diskFreePercent: number;
  hostRestarts: number;
  /** Backups in a row that have failed; undefined where the server makes none. */
  failedBackups: number | undefined;
  deployments: DeploymentReading[];
}

export interface DeploymentReading {
  name: string;
  revision: number;
  answered: number;
  /** Refused, late or failed. */
  unanswered: number;
  /** Of those, the late ones. */
  late: number;
  deadlineShares: readonly number[];
}

const hourMs = 3600_000;

// The state as a literal: the partial index is not used for a placeholder.
const failedQuery = prepared((db) =>
  db
    .select({ n: sql<number>`count(*)` })
    .from(job)
    .where(and(sql`${job.state} = 'FAILED'`, gte(job.endedAt, sql.placeholder('since'))))
    .prepare(),
);

interface ReadServices {
  config: Pick<Config, 'dataDir'>;
  db: Db;
  supervisor: Pick<Supervisor, 'health' | 'stats'>;
  backups: Pick<Backups, 'state'>;
}

export async function takeReading({ config, db, supervisor, backups }: ReadServices): Promise<ServerReading> {
  const { models } = await supervisor.stats();
  const { totalBytes, freeBytes } = diskSpace({ config });
  const now = Date.now();
  const oldest = Math.min(now, ...queuedSince(db).map(([, since]) => since ?? now));
  return {
    at: performance.now(),
    queueWaitSeconds: (now - oldest) / 1000,
    failedJobs: failedQuery(db).get({ since: now - hourMs })?.n ?? 0,
    diskFreePercent: (100 * freeBytes) / totalBytes,
    hostRestarts: supervisor.health().restarts,
    failedBackups: backups.state()?.failures,
    deployments: models.map(readDeployment),
  };
}

const readDeployment = ({
  name,
  version,
  ok,
  refused,
  expired,
  failed,
  deadlineShares,
}: HostStats['models'][number]): DeploymentReading => ({
  name,
  revision: version,
  answered: ok,
  unanswered: refused + expired + failed,
  late: expired,
  deadlineShares,
});
