/**
 * Which configuration to use, and how sure that is. Only a wrong result or a crash disqualifies a row. Noise widens intervals: it lowers
 * the confidence, never the number of rows to choose from.
 */
import type { targets } from '../benchmark/context.ts';
import type { PairedRatio } from '../benchmark/pairing.ts';
import { engineNames } from '../engine/engines.ts';
import { compare } from './deltas.ts';
import { accuracyText, mebibytes, modelName, ms, number, percent, plural, rowName } from './format.ts';
import { type Choice, type ChoiceStep, itemRatioWithin, type Measured, type ReportRow, ratioWithin } from './report.ts';

/** Rows whose estimate lies so near to the best one's are as good. */
const tieShare = 0.03;
/** By how much the chosen row may be behind the best one for a MEDIUM confidence. */
const behindMax = 0.05;

interface Metric {
  name: string;
  /** In the target's unit, lower is better; null where the row has no such number. */
  cost(row: ReportRow): number | null;
  says(row: ReportRow): string;
  /** The cost of a row as a multiple of another one's, with its interval; null where the measurement does not tell. */
  ratio(measured: Measured, of: ReportRow, to: ReportRow): Pick<PairedRatio, 'low' | 'high'> | null;
}

type Latency = NonNullable<ReportRow['latency']>;

const percentileMetric = (name: string, key: 'p95' | 'p50'): Metric => ({
  name,
  cost: ({ latency }) => latency?.[key]?.ns ?? null,
  says: ({ latency }) => ms(latency?.[key]?.ns as number),
  ratio: (measured, of, to) => ratioWithin(measured, of, to, key),
});

/** What each target looks at: the first of these that every row has. */
const metrics: Record<(typeof targets)[number], Metric[]> = {
  LATENCY: [
    percentileMetric('P95 latency', 'p95'),
    percentileMetric('median latency', 'p50'),
    {
      name: 'mean latency',
      cost: ({ latency }) => latency?.meanNs ?? null,
      says: ({ latency }) => ms((latency as Latency).meanNs),
      ratio: (measured, of, to) => ratioWithin(measured, of, to, 'mean'),
    },
  ],
  THROUGHPUT: [
    {
      name: 'throughput',
      cost: ({ itemsPerSecond }) => itemsPerSecond && 1 / itemsPerSecond,
      says: (row) => `${number(row.itemsPerSecond as number)} images a second`,
      // One inference follows the other: the time of an item varies as the mean latency does.
      ratio: (measured, of, to) => itemRatioWithin(measured, of, to, 'mean'),
    },
  ],
  MEMORY: [
    {
      name: 'memory use',
      cost: ({ memory }) => memory?.increaseBytes ?? null,
      says: (row) => mebibytes(row.memory?.increaseBytes as number),
      ratio(_measured, of, to) {
        const [a, b] = [to.memory?.increaseBytes ?? 0, of.memory?.increaseBytes ?? 0];
        return { low: b / a, high: b / a };
      },
    },
  ],
};

const metricOf = ({ request: { target } }: Measured, rows: ReportRow[]): Metric | undefined =>
  metrics[target].find(({ cost }) => rows.every((row) => cost(row) !== null));

/** Each rule narrows the rows down, and says how; null where it does not apply. It never leaves none. */
const rules: { rule: string; narrow(measured: Measured, rows: ReportRow[]): { kept: ReportRow[]; says: string } | null }[] = [
  { rule: 'ACCURACY', narrow: withinBudget },
  { rule: 'BATCH', narrow: smallestBatches },
  { rule: 'TARGET', narrow: bestByTarget },
  { rule: 'SIMPLER', narrow: simplest },
];

/** The configuration to use, with the reasons: first by accuracy, then by the target, ties to the simpler one. */
export function choose(measured: Measured): Choice {
  const right = measured.rows.filter((row) => row.samples !== null && row.verdict !== 'INVALID');
  const first = {
    rule: 'RIGHT',
    says: `${right.length} of ${plural(measured.rows.length, 'row')} ${right.length === 1 ? 'computes' : 'compute'} the right results.`,
    kept: right.map(({ n }) => n),
  };
  if (right.length === 0) return { n: null, confidence: null, says: whyNone(measured.rows), steps: [first] };
  const steps: ChoiceStep[] = [first];
  let rows = right;
  let contenders = right;
  for (const { rule, narrow } of rules) {
    if (rule === 'TARGET') contenders = rows;
    const narrowed = narrow(measured, rows);
    if (!narrowed) continue;
    rows = narrowed.kept;
    steps.push({ rule, says: narrowed.says, kept: rows.map(({ n }) => n) });
  }
  const chosen = rows[0] as ReportRow;
  const { confidence, says } = confidenceIn(measured, chosen, contenders);
  steps.push({ rule: 'CONFIDENCE', says, kept: [chosen.n] });
  return { n: chosen.n, confidence, says: `Use ${rowName(measured, chosen)}.`, steps };
}

/** Why there is no winner: the first that is so. */
const noWinner: { is(row: ReportRow): boolean; says: string }[] = [
  { is: ({ verdict }) => verdict === 'INVALID', says: 'no configuration computes the right results' },
  { is: () => true, says: 'nothing could be measured' },
];

const whyNone = (rows: ReportRow[]): string => `No winner: ${noWinner.find(({ is }) => rows.some(is))?.says ?? 'nothing was asked for'}.`;

function withinBudget(measured: Measured, rows: ReportRow[]): { kept: ReportRow[]; says: string } {
  const { accuracyDropMax } = measured.request;
  const accuracyOf = ({ model }: ReportRow) => measured.models[model]?.accuracy ?? null;
  if (new Set(rows.map(({ model }) => model)).size === 1) {
    return { kept: rows, says: `All are ${modelName(measured, rows[0] as ReportRow)}: none is more accurate than the other.` };
  }
  const known = rows.flatMap((row) => accuracyOf(row) ?? []);
  const most = known.toSorted((a, b) => b.value - a.value)[0];
  if (!most) return { kept: rows, says: 'No accuracy is known: evaluate the versions to choose by it.' };
  const comparable = known.every(({ datasetHash, split }) => datasetHash === most.datasetHash && split === most.split);
  if (!comparable) return { kept: rows, says: 'The versions were evaluated on different images: their accuracies cannot be compared.' };
  const kept = rows.filter((row) => most.value - (accuracyOf(row)?.value ?? Number.NEGATIVE_INFINITY) <= accuracyDropMax);
  return {
    kept,
    says: `The most accurate version reaches ${accuracyText(most)}; those that lose at most ${percent(accuracyDropMax)} stay.`,
  };
}

/** The latency that counts is that of one request: a larger batch of the same configuration cannot answer it sooner, whatever was measured. */
function smallestBatches({ request: { target } }: Measured, rows: ReportRow[]): { kept: ReportRow[]; says: string } | null {
  const rivals = ({ model, engine, intraOpThreads }: ReportRow) =>
    rows.filter((row) => row.model === model && row.engine === engine && row.intraOpThreads === intraOpThreads);
  const kept = rows.filter((row) => rivals(row).every(({ batchSize }) => row.batchSize <= batchSize));
  if (target !== 'LATENCY' || kept.length === rows.length) return null;
  return { kept, says: 'A larger batch never answers one image sooner: of each configuration its smallest batch stays.' };
}

function bestByTarget(measured: Measured, rows: ReportRow[]): { kept: ReportRow[]; says: string } {
  const metric = metricOf(measured, rows);
  if (!metric) return { kept: rows, says: 'Not every row has the number that the target asks for.' };
  const cost = (row: ReportRow) => metric.cost(row) as number;
  const best = rows.reduce((a, b) => (cost(b) < cost(a) ? b : a));
  const kept = rows.filter((row) => cost(row) <= (1 + tieShare) * cost(best));
  const others = kept.length === 1 ? '' : ` ${kept.length} are within ${100 * tieShare} % of it.`;
  return { kept, says: `The best ${metric.name} is ${metric.says(best)}.${others}` };
}

function simplest(_measured: Measured, rows: ReportRow[]): { kept: ReportRow[]; says: string } | null {
  if (rows.length === 1) return null;
  const order = (row: ReportRow) => [engineNames.indexOf(row.engine), row.intraOpThreads, row.batchSize, row.n];
  const kept = rows.toSorted((a, b) => compare(order(a), order(b))).slice(0, 1);
  return { kept, says: 'Of those the simplest: engine, then fewest threads, then smallest batch.' };
}

/** Compares the chosen row with its contenders within rounds, and says what would make the choice surer. */
function confidenceIn(
  measured: Measured,
  chosen: ReportRow,
  contenders: ReportRow[],
): { confidence: NonNullable<Choice['confidence']>; says: string } {
  const metric = metricOf(measured, contenders);
  const others = contenders.filter(({ n }) => n !== chosen.n);
  if (others.length === 0) return { confidence: 'HIGH', says: 'Confidence HIGH: there is no other configuration to choose.' };
  if (!metric) return { confidence: 'LOW', says: 'Confidence LOW: the rows could not be compared.' };
  /** Rows that may be better than the chosen one by more than this share. */
  const maybeBetter = (share: number) => others.filter((row) => !((metric.ratio(measured, row, chosen)?.low ?? 0) * (1 + share) >= 1));
  if (maybeBetter(0).length === 0) {
    return { confidence: 'HIGH', says: `Confidence HIGH: the ${metric.name} of every other row is worse beyond doubt.` };
  }
  const rivals = maybeBetter(behindMax);
  const within = `${100 * behindMax} %`;
  if (rivals.length === 0) return { confidence: 'MEDIUM', says: `Confidence MEDIUM: no other row can be better by more than ${within}.` };
  const names = rivals.map(({ n }) => n).join(', ');
  return {
    confidence: 'LOW',
    says: `Confidence LOW: the rounds do not rule out that row ${names} is better by more than ${within}. ${remedy(measured, [chosen, ...rivals])}`,
  };
}

const disturbances: Record<string, string> = {
  STEAL: 'other virtual machines took processor time',
  THROTTLED: 'the container’s processor quota stopped it',
  CONTENTION: 'other processes took processor time',
};

function remedy({ request: { profile } }: Measured, rows: ReportRow[]): string {
  const seen = Object.keys(disturbances).filter((code) => rows.some(({ reasons }) => reasons.some((reason) => reason.code === code)));
  const quieter = seen.map((code) => disturbances[code]).join(' and ');
  const longer = profile === 'QUICK' ? 'measure with the profile FULL' : 'measure again';
  return quieter ? `While they were measured, ${quieter}: ${longer} on a quieter machine.` : `To be surer, ${longer}.`;
}
