/** How the versions of a model were measured over time. */
import { and, desc, eq, inArray, isNotNull, lt, sql } from 'drizzle-orm';
import { Machine } from '../benchmark/cells.ts';
import type { BenchmarkRequest } from '../benchmark/context.ts';
import { benchmarkRun } from '../benchmark/tables.ts';
import type { Queryable } from '../db.ts';
import { deploymentRevision } from '../deployments/tables.ts';
import type { BenchmarkProfile } from '../jobs/specs.ts';
import { modelVersion } from '../models/tables.ts';
import { type Difference, differencesBetween, isSameSetting } from '../reports/comparison.ts';
import { compare } from '../reports/deltas.ts';
import type { Report, ReportRow, RowView } from '../reports/report.ts';
import { reasonText } from '../reports/sentences.ts';
import { benchmarkPoint } from './tables.ts';

/**
 * The row by which a version is followed: all versions at the setting that the report chose, so that they are compared alike. Of a version
 * that has no right row there, its smallest batch on the fewest threads and instances. Null where it has none at all.
 */
export function followedRow({ rows, choice }: Report, model: number): ReportRow | null {
  const order = ({ batchSize, intraOpThreads, instances, n }: ReportRow) => [batchSize, intraOpThreads, instances, n];
  const right = rows
    .filter((row) => row.model === model && row.samples !== null && row.verdict !== 'INVALID')
    .sort((a, b) => compare(order(a), order(b)));
  const chosen = rows.find(({ n }) => n === choice.n);
  return right.find((row) => chosen && isSameSetting(row, chosen)) ?? right[0] ?? null;
}

/** In the transaction that ends a benchmark. */
export function insertPoints(tx: Queryable, report: Report): void {
  const baseline = report.rows.find(({ n }) => n === report.baseline);
  for (const [model, { versionId }] of report.models.entries()) {
    const row = followedRow(report, model);
    const version = tx.select({ modelId: modelVersion.modelId }).from(modelVersion).where(eq(modelVersion.id, versionId)).get();
    if (!row || !baseline || !version) continue;
    const { jobId, measuredAt } = report;
    const values = {
      jobId,
      ...version,
      modelVersionId: versionId,
      measuredAt: Date.parse(measuredAt),
      rowJson: row,
      baselineJson: baseline,
    };
    tx.insert(benchmarkPoint).values(values).run();
  }
}

/** A benchmark of a version as people read it. */
export interface HistoryPoint {
  seq: number;
  jobId: string;
  modelVersionId: string;
  measuredAt: number;
  machine: Machine;
  scenario: BenchmarkRequest['scenario'];
  profile: BenchmarkProfile;
  row: RowView;
  baseline: RowView;
  /** What was not the same at the point before it. Empty for the first. */
  differences: Difference[];
}

/** Rows of the forms 1 to 3 were stored with their sentences, and all of one instance. */
const rowView = (row: ReportRow | RowView): RowView => ({
  ...row,
  instances: row.instances ?? 1,
  reasons: row.reasons.map((reason) => ({
    ...reason,
    message: 'message' in reason ? reason.message : reasonText(row as ReportRow, reason),
  })),
});

/** Points of a model, or of the versions that a deployment has served. */
export type HistoryOf = { modelId: string } | { deploymentId: string };

/** Newest first, behind the point with this `seq`. */
export function listPoints(db: Queryable, of: HistoryOf, limit: number, after: number | null): HistoryPoint[] {
  const isOf =
    'modelId' in of
      ? eq(benchmarkPoint.modelId, of.modelId)
      : inArray(
          benchmarkPoint.modelVersionId,
          db
            .select({ id: deploymentRevision.modelVersionId })
            .from(deploymentRevision)
            .where(and(eq(deploymentRevision.deploymentId, of.deploymentId), isNotNull(deploymentRevision.activatedAt))),
        );
  const context = benchmarkRun.contextJson;
  // One more than asked for: what the last one differs from.
  const rows = db
    .select({
      point: benchmarkPoint,
      machine: benchmarkRun.machineJson,
      codeVersion: sql<string>`${context} ->> '$.codeVersion'`,
      scenario: sql<BenchmarkRequest['scenario']>`coalesce(${context} ->> '$.request.scenario', 'SINGLE_STREAM')`,
      profile: sql<BenchmarkProfile>`${context} ->> '$.request.profile'`,
    })
    .from(benchmarkPoint)
    .innerJoin(benchmarkRun, eq(benchmarkRun.jobId, benchmarkPoint.jobId))
    .where(and(isOf, after === null ? undefined : lt(benchmarkPoint.seq, after)))
    .orderBy(desc(benchmarkPoint.seq))
    .limit(limit + 1)
    .all()
    .map(({ point, machine, ...about }) => {
      const row = point.rowJson as ReportRow;
      return { point, row, surroundings: { machine: Machine.parse(machine), engines: [row.engineVersion], ...about } };
    });
  return rows.slice(0, limit).map(({ point, row, surroundings }, i) => {
    const { seq, jobId, modelVersionId, measuredAt, baselineJson } = point;
    const before = rows[i + 1];
    return {
      seq,
      jobId,
      modelVersionId,
      measuredAt,
      machine: surroundings.machine,
      scenario: surroundings.scenario,
      profile: surroundings.profile,
      row: rowView(row),
      baseline: rowView(baselineJson as ReportRow),
      differences: before ? differencesBetween(before.surroundings, surroundings) : [],
    };
  });
}
