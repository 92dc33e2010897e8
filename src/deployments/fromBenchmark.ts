import type { Config } from '../config.ts';
import type { Queryable } from '../db.ts';
import { servingEngine } from '../engine/engines.ts';
import { batchSymbolOf } from '../engine/shapes.ts';
import { refuse } from '../errors.ts';
import { type ModelConfig, permitsOf } from '../inference/config.ts';
import { OnnxMeta } from '../jobs/results.ts';
import type { ModelVersion } from '../models/tables.ts';
import type { Report, ReportRow } from '../reports/report.ts';
import { findReportOf, readContent } from '../reports/reports.ts';

/** More threads, or more items in a run, have to make an item this much cheaper. */
const worthwhile = 0.9;

type Measured = Required<Pick<ModelConfig, 'intraOpThreads' | 'batchMax' | 'runMs'>>;
interface Curve extends Measured {
  /** Of one item in a run of `batchMax`. */
  itemMs: number;
}

export type MeasuredRow = Pick<ReportRow, 'batchSize' | 'intraOpThreads'> & { meanMs: number };

/**
 * Threads, batch and run times as a benchmark has measured them on the serving engine; no batch where requests cannot share a run. Refuses (`benchmarkJobId`) where it has
 * measured no single item of this version that counts.
 */
export function measuredSettings(
  db: Queryable,
  { cores, inferencePermits: permits = permitsOf(cores, 1) }: Pick<Config, 'cores' | 'inferencePermits'>,
  jobId: string,
  { id, number, signatureJson }: Pick<ModelVersion, 'id' | 'number' | 'signatureJson'>,
  deadlineMs: number,
): Measured {
  const report = findReportOf(db, jobId) ?? refuse('NOT_FOUND', 'benchmarkJobId', 'There is no benchmark of this id that has ended.');
  const { models, rows } = JSON.parse(readContent(db, report)) as Report;
  const { inputs, outputs } = OnnxMeta.parse(signatureJson);
  const batched = batchSymbolOf([...inputs, ...outputs]) !== null;
  const usable = rows.flatMap(({ model, engine, verdict, latency, ...row }) => {
    const counts = models[model]?.versionId === id && engine === servingEngine && (verdict === 'VALID' || verdict === 'UNSTABLE');
    return counts && latency && (batched || row.batchSize === 1) ? [{ ...row, meanMs: latency.meanNs / 1e6 }] : [];
  });
  return (
    bestOf(usable, { permits, cores, deadlineMs }) ??
    refuse(
      'INVALID',
      'benchmarkJobId',
      `The benchmark has no valid row of version ${number} with a batch of 1 on ${servingEngine} and threads for which there are cores.`,
    )
  );
}

/**
 * The fewest threads for which there are cores beside the other permits, and the smallest batch, that no other beats by 10 % for each item;
 * null where single items were not measured. No batch may take longer than the deadline.
 */
export function bestOf(
  rows: readonly MeasuredRow[],
  { permits, cores, deadlineMs }: Record<'permits' | 'cores' | 'deadlineMs', number>,
): Measured | null {
  const curves = [...Map.groupBy(rows, ({ intraOpThreads }) => intraOpThreads)]
    .filter(([threads]) => threads === 1 || permits * threads <= cores)
    .sort(([a], [b]) => a - b)
    .flatMap(([threads, of]) => curveOf(threads, of, deadlineMs));
  const [first, ...others] = curves;
  if (!first) return null;
  const { itemMs: _, ...best } = others.reduce((a, b) => (b.itemMs <= worthwhile * a.itemMs ? b : a), first);
  return best;
}

/** Nothing where single items were not measured. */
function curveOf(intraOpThreads: number, rows: readonly MeasuredRow[], deadlineMs: number): Curve[] {
  const itemMs = ({ batchSize, meanMs }: MeasuredRow): number => meanMs / batchSize;
  const [single, ...batches] = rows.toSorted((a, b) => a.batchSize - b.batchSize);
  if (single?.batchSize !== 1) return [];
  const best = batches.reduce((a, b) => (b.meanMs <= deadlineMs && itemMs(b) <= worthwhile * itemMs(a) ? b : a), single);
  const runMs = Object.fromEntries(rows.map(({ batchSize, meanMs }) => [batchSize, meanMs]));
  return [{ intraOpThreads, batchMax: best.batchSize, runMs, itemMs: itemMs(best) }];
}
