/**
 * Versions that are worse than an earlier one: than the newest that was measured in the same way, and than those that serve. The decision is
 * that of a report's comparisons, by intervals. It is stored, with a WARNING event of the job, in the transaction that ends the job.
 */
import { and, asc, count, desc, eq, inArray, isNull, lt, notInArray, type SQL, sql } from 'drizzle-orm';
import { Machine } from '../benchmark/cells.ts';
import { accuracyIn } from '../benchmark/context.ts';
import { pairedRatio } from '../benchmark/pairing.ts';
import { benchmarkRow, benchmarkRun } from '../benchmark/tables.ts';
import { canonicalJson } from '../canonical.ts';
import { datasetVersion } from '../datasets/tables.ts';
import type { Queryable } from '../db.ts';
import { deployment, deploymentRevision } from '../deployments/tables.ts';
import { appendEvent } from '../jobs/events.ts';
import type { AttemptContext } from '../jobs/kinds.ts';
import { findModelVersionEver } from '../models/models.ts';
import { type ModelVersion, model, modelVersion } from '../models/tables.ts';
import { differencesBetween, machineDifferences, ratioApart } from '../reports/comparison.ts';
import { verdictOf } from '../reports/deltas.ts';
import type { Report, ReportRow } from '../reports/report.ts';
import { report as reportTable } from '../reports/tables.ts';
import { type EvaluationRow, evaluation } from '../training/tables.ts';
import { accuracyLoss } from './accuracyLoss.ts';
import { followedRow } from './points.ts';
import { type AccuracyFacts, type LatencyFacts, type RegressionFacts, regressionText } from './regressionText.ts';
import { type RegressionRow, regression } from './tables.ts';

type Attempt = Pick<AttemptContext, 'job' | 'attemptNumber'>;

/** Of an earlier version, what is compared with. */
interface Earlier {
  versionId: string;
  /** Deployments that it serves. */
  serves: string[];
}

/** Earlier benchmarks of a version at a setting that are looked at for one on the same machine. */
const benchmarksMax = 20;

/** In the transaction that ends a benchmark, behind its rows and its report. Of OFFLINE only the throughput counts. */
export function noteSlower(tx: Queryable, attempt: Attempt, report: Report): void {
  if (report.request.scenario === 'OFFLINE') return;
  for (const [index, { versionId }] of report.models.entries()) {
    const row = followedRow(report, index);
    const version = findModelVersionEver(tx, versionId);
    if (!row || !version) continue;
    for (const earlier of earlierOf(tx, version, (isOne) => newestMeasured(tx, report, row, isOne))) {
      const change = latencyChange(earlier.row, row, earlier.jobId === report.jobId);
      if (!change || verdictOf(change) !== 'SLOWER') continue;
      const { engine, batchSize, intraOpThreads, instances } = row;
      const facts: LatencyFacts = {
        before: change.before,
        after: change.after,
        low: change.low,
        high: change.high,
        serves: earlier.serves,
        setting: { engine, batchSize, intraOpThreads, instances },
        isApart: earlier.jobId !== report.jobId,
        differences: earlier.differences,
      };
      note(tx, attempt, version, earlier.versionId, change.metric, facts);
    }
  }
}

/** In the transaction that inserts an evaluation. Of a checkpoint its conversion tells. */
export function noteLessAccurate(tx: Queryable, attempt: Attempt, row: EvaluationRow): void {
  const version = findModelVersionEver(tx, row.modelVersionId);
  const images = tx
    .select({ contentHash: datasetVersion.contentHash })
    .from(datasetVersion)
    .where(eq(datasetVersion.id, row.datasetVersionId))
    .get();
  if (version?.format !== 'ONNX' || !images?.contentHash || row.testTimeAugmentation !== 'NONE') return;
  const { contentHash } = images;
  for (const earlier of earlierOf(tx, version, (isOne) => newestEvaluated(tx, row.split, contentHash, isOne))) {
    const [before, after] = [accuracyIn(earlier.metrics), accuracyIn(row.metricsJson)];
    const loss = accuracyLoss(before, after);
    if (!loss) continue;
    const { metric, images: count } = after;
    const facts: AccuracyFacts = { before: before.value, after: after.value, ...loss, serves: earlier.serves, metric, images: count };
    note(tx, attempt, version, earlier.versionId, 'ACCURACY', facts);
  }
}

/**
 * The newest earlier version of the same precision that `find` finds something of, then those that serve. `find` gets the condition that a
 * version must meet.
 */
function earlierOf<T extends { versionId: string }>(
  tx: Queryable,
  { modelId, number, precision }: ModelVersion,
  find: (isOne: SQL | undefined) => T | undefined,
): (T & Earlier)[] {
  const isEarlier = and(
    eq(modelVersion.modelId, modelId),
    eq(modelVersion.format, 'ONNX'),
    lt(modelVersion.number, number),
    isNull(modelVersion.deletedAt),
  );
  const serving = tx
    .select({ versionId: modelVersion.id, name: deployment.name })
    .from(deploymentRevision)
    .innerJoin(deployment, eq(deployment.id, deploymentRevision.deploymentId))
    .innerJoin(modelVersion, eq(modelVersion.id, deploymentRevision.modelVersionId))
    .where(and(eq(deploymentRevision.state, 'ACTIVE'), isNull(deployment.deletedAt), isEarlier))
    .orderBy(desc(modelVersion.number), deployment.name)
    .all();
  const found = [
    find(and(isEarlier, eq(modelVersion.precision, precision))),
    ...[...new Set(serving.map(({ versionId }) => versionId))].map((id) => find(and(isEarlier, eq(modelVersion.id, id)))),
  ].filter((one) => one !== undefined);
  return [...new Map(found.map((one) => [one.versionId, one])).values()].map((one) => ({
    ...one,
    serves: serving.filter(({ versionId }) => versionId === one.versionId).map(({ name }) => name),
  }));
}

/** What the newest version's newest benchmark on the same machine, with the same sizes of inputs, says of the setting of `row`. */
function newestMeasured(tx: Queryable, report: Report, row: ReportRow, isOne: SQL | undefined) {
  const rows = tx
    .select({
      versionId: modelVersion.id,
      jobId: benchmarkRow.jobId,
      n: benchmarkRow.n,
      engineVersion: benchmarkRow.engineVersion,
      dims: benchmarkRow.dimsJson,
      machine: benchmarkRun.machineJson,
      scenario: benchmarkRow.scenario,
      codeVersion: sql<string>`${benchmarkRun.contextJson} ->> '$.codeVersion'`,
      profile: sql<string>`${benchmarkRun.contextJson} ->> '$.request.profile'`,
    })
    .from(benchmarkRow)
    .innerJoin(modelVersion, eq(modelVersion.id, benchmarkRow.modelVersionId))
    .innerJoin(benchmarkRun, eq(benchmarkRun.jobId, benchmarkRow.jobId))
    .where(
      and(
        isOne,
        eq(benchmarkRow.engine, row.engine),
        eq(benchmarkRow.batchSize, row.batchSize),
        eq(benchmarkRow.intraOpThreads, row.intraOpThreads),
        eq(benchmarkRow.instances, row.instances),
        eq(benchmarkRow.scenario, report.request.scenario),
        notInArray(benchmarkRow.verdict, ['INVALID', 'UNAVAILABLE']),
      ),
    )
    .orderBy(desc(modelVersion.number), desc(sql`${benchmarkRun}.rowid`))
    .limit(benchmarksMax)
    .all()
    .map((one) => ({ ...one, machine: Machine.parse(one.machine), engines: [one.engineVersion] }));
  const dims = canonicalJson(report.models[row.model]?.dims ?? {});
  const found = rows.find((one) => machineDifferences(one.machine, report.machine).length === 0 && canonicalJson(one.dims) === dims);
  const measured = found && (found.jobId === report.jobId ? report.rows[found.n] : reportRow(tx, found));
  if (!found || !measured) return undefined;
  const { machine, codeVersion, request } = report;
  const now = { machine, codeVersion, engines: [row.engineVersion], scenario: request.scenario, profile: request.profile };
  const { versionId, jobId } = found;
  return { versionId, jobId, row: measured, differences: differencesBetween(found, now) };
}

function reportRow(tx: Queryable, { jobId, n }: { jobId: string; n: number }): ReportRow | undefined {
  const stored = tx
    .select({ row: sql<string | null>`json_extract(${reportTable.content}, ${`$.rows[${n}]`})` })
    .from(reportTable)
    .where(eq(reportTable.benchmarkJobId, jobId))
    .orderBy(desc(reportTable.schemaVersion))
    .get();
  return stored?.row ? (JSON.parse(stored.row) as ReportRow) : undefined;
}

/** Without test-time augmentation, as versions serve. */
function newestEvaluated(tx: Queryable, split: EvaluationRow['split'], contentHash: string, isOne: SQL | undefined) {
  return tx
    .select({ versionId: modelVersion.id, metrics: evaluation.metricsJson })
    .from(evaluation)
    .innerJoin(modelVersion, eq(modelVersion.id, evaluation.modelVersionId))
    .innerJoin(datasetVersion, eq(datasetVersion.id, evaluation.datasetVersionId))
    .where(
      and(isOne, eq(evaluation.split, split), eq(datasetVersion.contentHash, contentHash), eq(evaluation.testTimeAugmentation, 'NONE')),
    )
    .orderBy(desc(modelVersion.number), desc(evaluation.createdAt), desc(evaluation.id))
    .get();
}

const roundsOf = ({ course = [], disturbedRounds = [] }: ReportRow) =>
  new Map(course.map(({ round, p50Ns, p95Ns }) => [round, { p50: p50Ns, p95: p95Ns, disturbed: disturbedRounds.includes(round) }]));

/** How the P95 has changed, or the median where there are too few samples: within rounds where both were measured in the same ones. */
export function latencyChange(before: ReportRow, after: ReportRow, isSameBenchmark: boolean) {
  const hasBoth = (name: 'p50' | 'p95') => before.latency?.[name]?.kind === 'EXACT' && after.latency?.[name]?.kind === 'EXACT';
  const name = hasBoth('p95') ? 'p95' : 'p50';
  const [a, b] = [before.latency?.[name], after.latency?.[name]];
  const time = isSameBenchmark ? pairedRatio(roundsOf(before), roundsOf(after), name) : ratioApart(a, b);
  if (!time || !a?.ns || !b?.ns) return null;
  return { metric: name === 'p95' ? ('P95' as const) : ('P50' as const), before: a.ns, after: b.ns, ...time };
}

function note(
  tx: Queryable,
  { job, attemptNumber }: Attempt,
  version: ModelVersion,
  againstId: string,
  metric: RegressionRow['metric'],
  factsJson: RegressionFacts,
): void {
  const row = { at: Date.now(), jobId: job.id, modelVersionId: version.id, againstId, metric, factsJson };
  const { seq } = tx.insert(regression).values(row).returning({ seq: regression.seq }).get();
  const message = sayRegression(tx, { seq, ...row });
  appendEvent(tx, job.id, attemptNumber, { type: 'WARNING', payload: { code: 'REGRESSION', message } });
}

/** What a regression says to people. */
export function sayRegression(db: Queryable, { modelVersionId, againstId, metric, factsJson }: RegressionRow): string {
  const names = db
    .select({ id: modelVersion.id, name: model.name, number: modelVersion.number })
    .from(modelVersion)
    .innerJoin(model, eq(model.id, modelVersion.modelId))
    .where(inArray(modelVersion.id, [modelVersionId, againstId]))
    .all();
  const of = (id: string) => names.find((one) => one.id === id);
  return regressionText(of(modelVersionId), of(againstId), metric, factsJson as RegressionFacts);
}

/** Newest first, behind the one with this `seq`. */
export function listRegressions(db: Queryable, limit: number, after: number | null): RegressionRow[] {
  return db
    .select()
    .from(regression)
    .where(after === null ? undefined : lt(regression.seq, after))
    .orderBy(desc(regression.seq))
    .limit(limit)
    .all();
}

/** Those that a job has found, of this version only where one is named. */
export function regressionsOf(db: Queryable, jobId: string, modelVersionId?: string): RegressionRow[] {
  return db
    .select()
    .from(regression)
    .where(and(eq(regression.jobId, jobId), modelVersionId ? eq(regression.modelVersionId, modelVersionId) : undefined))
    .orderBy(asc(regression.seq))
    .all();
}

export function countRegressions(db: Queryable, metric: RegressionRow['metric']): number {
  return db.select({ n: count() }).from(regression).where(eq(regression.metric, metric)).get()?.n ?? 0;
}
