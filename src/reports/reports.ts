import { randomUUIDv7 } from 'node:crypto';
import { and, asc, desc, eq, exists, getTableColumns, lt, sql } from 'drizzle-orm';
import { Machine, Telemetry } from '../benchmark/cells.ts';
import { BenchmarkContext } from '../benchmark/context.ts';
import { benchmarkRow, benchmarkRun, type Verdict } from '../benchmark/tables.ts';
import type { Queryable } from '../db.ts';
import type { EngineName } from '../engine/engines.ts';
import { notFound } from '../errors.ts';
import type { StorageServices } from '../storage/blobs.ts';
import { artifact, blob } from '../storage/tables.ts';
import { makeInThread } from './inThread.ts';
import type { Made, Source } from './make.ts';
import { REPORT_SCHEMA_VERSION, type ReportView } from './report.ts';
import { report, type StoredReport } from './tables.ts';
import { viewOf } from './view.ts';

const { content: _content, ...columns } = getTableColumns(report);

export function findReport(db: Queryable, id: string): StoredReport | undefined {
  return db.select(columns).from(report).where(eq(report.id, id)).get();
}

/** The report of a benchmark in the newest form that it has. */
export function findReportOf(db: Queryable, jobId: string): StoredReport | undefined {
  return db.select(columns).from(report).where(eq(report.benchmarkJobId, jobId)).orderBy(desc(report.schemaVersion)).get();
}

/** Reports by their hash, the last used last: a report never changes. */
const views = new Map<string, ReportView>();
const viewsMax = 8;

/** What a report says. */
export function readReport(db: Queryable, stored: StoredReport): ReportView {
  const { sha256 } = stored;
  const found = views.get(sha256) ?? viewOf(JSON.parse(readContent(db, stored)));
  views.delete(sha256);
  views.set(sha256, found);
  for (const oldest of views.keys()) if (views.size > viewsMax) views.delete(oldest);
  return found;
}

/** Canonical JSON of its `Report`. */
export function readContent(db: Queryable, { id }: StoredReport): string {
  return (db.select({ content: report.content }).from(report).where(eq(report.id, id)).get() ?? notFound('report')).content;
}

export function readVerdict(db: Queryable, { benchmarkJobId }: StoredReport): Verdict {
  const run = db.select({ verdict: benchmarkRun.verdict }).from(benchmarkRun).where(eq(benchmarkRun.jobId, benchmarkJobId)).get();
  return (run ?? notFound('benchmark')).verdict;
}

export interface ReportFilter {
  jobId?: string | null;
  modelVersionId?: string | null;
}

/** Newest first, behind the report with the id `after`. Ids are UUIDv7: they grow with the time of creation. */
export function listReports(db: Queryable, { jobId, modelVersionId }: ReportFilter, limit: number, after: string | null): StoredReport[] {
  const hasVersion =
    modelVersionId &&
    exists(
      db
        .select({ one: sql`1` })
        .from(benchmarkRow)
        .where(and(eq(benchmarkRow.jobId, report.benchmarkJobId), eq(benchmarkRow.modelVersionId, modelVersionId))),
    );
  return db
    .select(columns)
    .from(report)
    .where(
      and(after === null ? undefined : lt(report.id, after), jobId ? eq(report.benchmarkJobId, jobId) : undefined, hasVersion || undefined),
    )
    .orderBy(desc(report.id))
    .limit(limit)
    .all();
}

export function insertReport(tx: Queryable, benchmarkJobId: string, { content, sha256 }: Made): StoredReport {
  return tx
    .insert(report)
    .values({ id: randomUUIDv7(), benchmarkJobId, schemaVersion: REPORT_SCHEMA_VERSION, sha256, content, createdAt: Date.now() })
    .returning(columns)
    .get();
}

/** The artifact with the samples of a row. */
export function samplesOf(db: Queryable, jobId: string, n: number): string | null {
  const isRow = and(eq(benchmarkRow.jobId, jobId), eq(benchmarkRow.n, n));
  return db.select({ id: benchmarkRow.samplesArtifactId }).from(benchmarkRow).where(isRow).get()?.id ?? null;
}

/** The report of a benchmark, made again from its rows and samples. */
export async function remakeReport(services: StorageServices, jobId: string): Promise<Made> {
  return makeInThread(services.config.dataDir, readSource(services.db, jobId));
}

function readSource(db: Queryable, jobId: string): Source {
  const run = db.select().from(benchmarkRun).where(eq(benchmarkRun.jobId, jobId)).get() ?? notFound('benchmark');
  const context = BenchmarkContext.parse(run.contextJson);
  const rows = db
    .select({ row: benchmarkRow, samples: { sha256: blob.sha256, sizeBytes: blob.sizeBytes } })
    .from(benchmarkRow)
    .leftJoin(artifact, eq(artifact.id, benchmarkRow.samplesArtifactId))
    .leftJoin(blob, eq(blob.sha256, artifact.sha256))
    .where(eq(benchmarkRow.jobId, jobId))
    .orderBy(asc(benchmarkRow.n))
    .all();
  return {
    context,
    machine: Machine.parse(run.machineJson),
    measurements: rows.map(({ row, samples }) => ({
      n: row.n,
      model: context.request.modelVersionIds.indexOf(row.modelVersionId),
      engine: row.engine as EngineName,
      engineVersion: row.engineVersion,
      batchSize: row.batchSize,
      intraOpThreads: row.intraOpThreads,
      instances: row.instances,
      telemetry: Telemetry.parse(row.telemetryJson),
      samples,
    })),
  };
}
