import { statSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { count } from 'drizzle-orm';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Config } from './config.ts';
import { type Db, databaseFile } from './db.ts';
import type { Supervisor } from './deployments/supervise.ts';
import { createGraphqlMetrics, type GraphqlMetrics, requestBuckets } from './graphql/metrics.ts';
import { countRegressions } from './history/regressions.ts';
import { regressionMetrics } from './history/tables.ts';
import { createJobMetrics, type JobMetrics, queuedSince } from './jobs/metrics.ts';
import { jobStates, slot } from './jobs/tables.ts';
import { addProcessMetrics } from './processMetrics.ts';
import { whyNotReady } from './ready.ts';
import { diskSpace } from './storage/disk.ts';
import { countJobs } from './system/system.ts';

export interface ServerMetrics extends JobMetrics, GraphqlMetrics {
  registry: Registry;
  /** Takes a request that has ended; `route` is undefined where there is none for its path. */
  answered(route: string | undefined, res: ServerResponse, seconds: number): void;
  stop(): void;
}

interface Measured {
  config: Pick<Config, 'dataDir' | 'diskReserveBytes'>;
  db: Db;
  supervisor: Pick<Supervisor, 'health'>;
  stopping: AbortSignal;
}

/** The server's metrics; the inference host has its own. What can be read is read when they are asked for; only times are counted as they come. */
export function createServerMetrics(measured: Measured): ServerMetrics {
  const { config, db, supervisor } = measured;
  const registry = new Registry();
  const registers = [registry];
  const gauge = (name: string, help: string, value: () => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(value());
      },
    });
  new Gauge({
    name: 'whetstone_jobs',
    help: 'Jobs by state.',
    labelNames: ['state'],
    registers,
    collect() {
      for (const state of jobStates) this.set({ state }, countJobs(db, state));
    },
  });
  new Gauge({
    name: 'whetstone_job_queue_oldest_seconds',
    help: 'How long the oldest job of a kind waits that was not started yet; 0 where none waits.',
    labelNames: ['kind'],
    registers,
    collect() {
      for (const [kind, since] of queuedSince(db)) this.set({ kind }, since === null ? 0 : Math.max(0, Date.now() - since) / 1000);
    },
  });
  gauge('whetstone_slots', 'Slots for jobs.', () => db.select({ n: count() }).from(slot).get()?.n ?? 0);
  gauge(
    'whetstone_slots_used',
    'Slots that a job holds.',
    () =>
      db
        .select({ n: count(slot.jobId) })
        .from(slot)
        .get()?.n ?? 0,
  );
  gauge('whetstone_ready', 'Whether the server takes work, as /ready answers: 1 or 0.', () => (whyNotReady(measured).length === 0 ? 1 : 0));
  gauge('whetstone_disk_size_bytes', 'Size of the file system of the data folder.', () => diskSpace(measured).totalBytes);
  gauge('whetstone_disk_free_bytes', 'What is free of it.', () => diskSpace(measured).freeBytes);
  gauge('whetstone_database_size_bytes', 'Size of the database file.', () => sizeOf(databaseFile));
  gauge('whetstone_database_wal_size_bytes', 'Size of the write-ahead log of the database.', () => sizeOf(`${databaseFile}-wal`));
  const sizeOf = (name: string) => statSync(join(config.dataDir, name), { throwIfNoEntry: false })?.size ?? 0;
  new Counter({
    name: 'whetstone_inference_host_restarts_total',
    help: 'Deaths of the inference host since the start of the server.',
    registers,
    collect() {
      this.reset();
      this.inc(supervisor.health().restarts);
    },
  });
  new Counter({
    name: 'whetstone_regressions_total',
    help: 'Model versions that were found to be worse than an earlier one, by what they are worse in.',
    labelNames: ['metric'],
    registers,
    collect() {
      this.reset();
      for (const metric of regressionMetrics) this.inc({ metric }, countRegressions(db, metric));
    },
  });
  const http = new Histogram({
    name: 'whetstone_http_request_duration_seconds',
    help: 'Time of HTTP requests by route and class of the status, without event streams. ABORTED: the client left before the answer.',
    labelNames: ['route', 'status'],
    buckets: requestBuckets,
    registers,
  });
  const stop = addProcessMetrics(registry);
  return {
    registry,
    ...createJobMetrics(registry),
    ...createGraphqlMetrics(registry),
    answered(route = 'none', { headersSent, statusCode }, seconds) {
      http.observe({ route, status: headersSent ? `${Math.floor(statusCode / 100)}xx` : 'ABORTED' }, seconds);
    },
    stop,
  };
}
