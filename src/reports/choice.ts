/**
 * Which configuration to use, and how sure that is. Only a wrong result or a crash disqualifies a row. Noise widens intervals: it lowers
 * the confidence, never the number of rows to choose from.
 */
import { smallestBatchesOf } from '../benchmark/contest.ts';
import type { Ratio } from '../benchmark/pairing.ts';
import { engineNames } from '../engine/engines.ts';
import { compare } from './deltas.ts';
import {
  type Choice,
  type ChoiceStep,
  itemRatioWithin,
  type Measured,
  type MetricName,
  onSameImages,
  type ReportRow,
  ratioWithin,
} from './report.ts';

/** Rows whose estimate lies so near to the best one's are as good. */
export const tieShare = 0.01;
/** By how much the chosen row may be behind the best one for a MEDIUM confidence. */
export const behindMax = 0.05;

interface Metric {
  name: MetricName;
  /** In the target's unit, lower is better; null where the row has no such number. */
  cost(row: ReportRow): number | null;
  /** The cost of a row as a multiple of another one's, with its interval; null where the measurement does not tell. */
  ratio(measured: Measured, of: ReportRow, to: ReportRow): (Ratio & { leftOut?: number }) | null;
}

const percentileMetric = (name: MetricName, key: 'p95' | 'p50'): Metric => ({
  name,
  cost: ({ latency }) => latency?.[key]?.ns ?? null,
  ratio: (measured, of, to) => ratioWithin(measured, of, to, key),
});

/** What each target looks at: the first of these that every row has. */
const metrics: Record<Measured['request']['target'], Metric[]> = {
  LATENCY: [
    percentileMetric('P95', 'p95'),
    percentileMetric('P50', 'p50'),
    {
      name: 'MEAN',
      cost: ({ latency }) => latency?.meanNs ?? null,
      ratio: (measured, of, to) => ratioWithin(measured, of, to, 'mean'),
    },
  ],
  THROUGHPUT: [
    {
      name: 'THROUGHPUT',
      cost: ({ itemsPerSecond }) => itemsPerSecond && 1 / itemsPerSecond,
      // One inference follows the other: the time of an item varies as the mean latency does.
      ratio: (measured, of, to) => itemRatioWithin(measured, of, to, 'mean'),
    },
  ],
  MEMORY: [
    {
      name: 'MEMORY',
      cost: ({ memory }) => memory?.increaseBytes ?? null,
      ratio(_measured, of, to) {
        const [a, b] = [to.memory?.increaseBytes ?? 0, of.memory?.increaseBytes ?? 0];
        return { ratio: b / a, low: b / a, high: b / a };
      },
    },
  ],
};

const metricOf = ({ request: { target } }: Measured, rows: ReportRow[]): Metric | undefined =>
  metrics[target].find(({ cost }) => rows.every((row) => cost(row) !== null));

const numbersOf = (rows: ReportRow[]): number[] => rows.map(({ n }) => n);

/** Each rule narrows the rows down, and never to none; null where it does not apply. */
const rules: ((measured: Measured, rows: ReportRow[]) => ChoiceStep | null)[] = [withinBudget, smallestBatches, bestByTarget, simplest];

/** The configuration to use, with the reasons: first by accuracy, then by the target, ties to the simpler one. */
export function choose(measured: Measured): Choice {
  const right = measured.rows.filter((row) => row.samples !== null && row.verdict !== 'INVALID');
  const steps: ChoiceStep[] = [{ rule: 'RIGHT', kept: numbersOf(right) }];
  if (right.length === 0) return { n: null, confidence: null, steps };
  let rows = right;
  let contenders = right;
  for (const narrow of rules) {
    const step = narrow(measured, rows);
    if (!step) continue;
    if (step.rule === 'TARGET') contenders = rows;
    rows = rows.filter(({ n }) => step.kept.includes(n));
    steps.push(step);
  }
  const chosen = rows[0] as ReportRow;
  const { confidence, metric, rivals } = confidenceIn(measured, chosen, contenders);
  steps.push({ rule: 'CONFIDENCE', kept: [chosen.n], metric, rivals });
  return { n: chosen.n, confidence, steps };
}

function withinBudget(measured: Measured, rows: ReportRow[]): ChoiceStep {
  const { accuracyDropMax } = measured.request;
  const accuracyOf = ({ model }: ReportRow) => measured.models[model]?.accuracy ?? null;
  const step = { rule: 'ACCURACY', kept: numbersOf(rows) } as const;
  if (new Set(rows.map(({ model }) => model)).size === 1) return { ...step, found: 'ONE_VERSION' };
  const known = rows.flatMap((row) => accuracyOf(row) ?? []);
  const most = known.toSorted((a, b) => b.value - a.value)[0];
  if (!most) return { ...step, found: 'UNKNOWN' };
  const comparable = known.every((one) => onSameImages(one, most));
  if (!comparable) return { ...step, found: 'DIFFERENT_IMAGES' };
  const kept = rows.filter((row) => most.value - (accuracyOf(row)?.value ?? Number.NEGATIVE_INFINITY) <= accuracyDropMax);
  return { ...step, kept: numbersOf(kept), found: 'COMPARED' };
}

/** Of each configuration the smallest batch: the others cannot answer one image sooner. */
function smallestBatches({ request: { target } }: Measured, rows: ReportRow[]): ChoiceStep | null {
  const kept = smallestBatchesOf(rows);
  return target !== 'LATENCY' || kept.length === rows.length ? null : { rule: 'BATCH', kept: numbersOf(kept) };
}

function bestByTarget(measured: Measured, rows: ReportRow[]): ChoiceStep {
  const metric = metricOf(measured, rows);
  if (!metric) return { rule: 'TARGET', kept: numbersOf(rows), metric: null, best: null };
  const [first, ...others] = rows as [ReportRow, ...ReportRow[]];
  // Relative to the first row within rounds, where all have enough of them in common with it; else of all samples.
  const ratios = new Map(others.map((row) => [row, metric.ratio(measured, row, first)]));
  const inRounds = others.every((row) => ratios.get(row));
  const cost = (row: ReportRow) => (inRounds ? (ratios.get(row)?.ratio ?? 1) : (metric.cost(row) as number));
  const best = rows.reduce((a, b) => (cost(b) < cost(a) ? b : a));
  const kept = rows.filter((row) => cost(row) <= (1 + tieShare) * cost(best));
  const leftOut = inRounds ? Math.max(0, ...others.map((row) => ratios.get(row)?.leftOut ?? 0)) : 0;
  return { rule: 'TARGET', kept: numbersOf(kept), metric: metric.name, best: best.n, ...(leftOut > 0 && { leftOut }) };
}

/** Fewest threads before the fewest instances, and these before the smallest batch. */
function simplest(_measured: Measured, rows: ReportRow[]): ChoiceStep | null {
  if (rows.length === 1) return null;
  const order = (row: ReportRow) => [engineNames.indexOf(row.engine), row.intraOpThreads, row.instances, row.batchSize, row.n];
  const kept = rows.toSorted((a, b) => compare(order(a), order(b))).slice(0, 1);
  return { rule: 'SIMPLER', kept: numbersOf(kept) };
}

/** Compares the chosen row with its contenders within rounds. */
function confidenceIn(measured: Measured, chosen: ReportRow, contenders: ReportRow[]) {
  const metric = metricOf(measured, contenders);
  const others = contenders.filter(({ n }) => n !== chosen.n);
  /** Rows that may be better than the chosen one by more than this share. */
  const maybeBetter = (share: number) => others.filter((row) => !((metric?.ratio(measured, row, chosen)?.low ?? 0) * (1 + share) >= 1));
  const [better, muchBetter] = [maybeBetter(0), maybeBetter(behindMax)];
  const confidence: Choice['confidence'] = muchBetter.length > 0 ? 'LOW' : better.length > 0 ? 'MEDIUM' : 'HIGH';
  return { confidence, metric: metric?.name ?? null, rivals: numbersOf(confidence === 'LOW' ? muchBetter : better) };
}
