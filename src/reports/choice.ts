import type { targets } from '../benchmark/context.ts';
import { engines } from '../benchmark/engines.ts';
import type { EngineName } from '../jobs/specs.ts';
import { compare } from './deltas.ts';
import { accuracyText, mebibytes, modelName, ms, number, percent, plural, rowName } from './format.ts';
import type { Choice, ChoiceStep, Measured, ReportRow } from './report.ts';

/** Rows whose value lies so near to the best one's are as good. */
const tieShare = 0.03;

interface Metric {
  name: string;
  /** Lower is better; null where the row has no such number. */
  cost(row: ReportRow): number | null;
  says(row: ReportRow): string;
}

const latency = (name: string, nsOf: (row: ReportRow) => number | null | undefined): Metric => ({
  name,
  cost: (row) => nsOf(row) ?? null,
  says: (row) => ms(nsOf(row) as number),
});

/** What each target looks at: the first of these that every row has. */
const metrics: Record<(typeof targets)[number], Metric[]> = {
  LATENCY: [
    latency('P95 latency', (row) => row.latency?.p95?.ns),
    latency('median latency', (row) => row.latency?.p50?.ns),
    latency('mean latency', (row) => row.latency?.meanNs),
  ],
  THROUGHPUT: [
    {
      name: 'throughput',
      cost: (row) => (row.itemsPerSecond === null ? null : -row.itemsPerSecond),
      says: (row) => `${number(row.itemsPerSecond as number)} images a second`,
    },
  ],
  MEMORY: [
    {
      name: 'memory use',
      cost: (row) => row.memory?.increaseBytes ?? null,
      says: (row) => mebibytes(row.memory?.increaseBytes as number),
    },
  ],
};

const engineOrder = Object.keys(engines) as EngineName[];

/** Each rule narrows the rows down, and says how. It never leaves none. */
const rules: { rule: string; narrow(measured: Measured, rows: ReportRow[]): { kept: ReportRow[]; says: string } }[] = [
  { rule: 'ACCURACY', narrow: withinBudget },
  { rule: 'TARGET', narrow: bestByTarget },
  { rule: 'SIMPLER', narrow: simplest },
];

/** The configuration to use, with the reasons: first by accuracy, then by the target, ties to the simpler one. */
export function choose(measured: Measured): Choice {
  const valid = measured.rows.filter((row) => row.verdict === 'VALID');
  const first = {
    rule: 'VALID',
    says: `${valid.length} of ${plural(measured.rows.length, 'row')} can be relied upon.`,
    kept: valid.map(({ n }) => n),
  };
  if (valid.length === 0) return { n: null, says: whyNone(measured.rows), steps: [first] };
  const steps: ChoiceStep[] = [first];
  let rows = valid;
  for (const { rule, narrow } of rules) {
    const { kept, says } = narrow(measured, rows);
    rows = kept;
    steps.push({ rule, says, kept: rows.map(({ n }) => n) });
  }
  const chosen = rows[0] as ReportRow;
  return { n: chosen.n, says: `Use ${rowName(measured, chosen)}.`, steps };
}

const noise = ['STEAL', 'THROTTLED', 'CONTENTION'];

/** Why there is no winner: the first that is so. */
const noWinner: { is(row: ReportRow): boolean; says: string }[] = [
  {
    is: ({ verdict, reasons }) => verdict === 'INVALID' && reasons.some(({ code }) => noise.includes(code)),
    says: 'the machine was too noisy',
  },
  { is: ({ verdict }) => verdict === 'UNSTABLE', says: 'no configuration ran at a stable speed' },
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

function bestByTarget({ request: { target } }: Measured, rows: ReportRow[]): { kept: ReportRow[]; says: string } {
  const metric = metrics[target].find(({ cost }) => rows.every((row) => cost(row) !== null));
  if (!metric) return { kept: rows, says: 'Not every row has the number that the target asks for.' };
  const cost = (row: ReportRow) => metric.cost(row) as number;
  const best = rows.reduce((a, b) => (cost(b) < cost(a) ? b : a));
  const kept = rows.filter((row) => cost(row) - cost(best) <= tieShare * Math.abs(cost(best)));
  const others = kept.length === 1 ? '' : ` ${kept.length} are within ${100 * tieShare} % of it.`;
  return { kept, says: `The best ${metric.name} is ${metric.says(best)}.${others}` };
}

function simplest(_measured: Measured, rows: ReportRow[]): { kept: ReportRow[]; says: string } {
  const order = (row: ReportRow) => [engineOrder.indexOf(row.engine), row.intraOpThreads, row.batchSize, row.n];
  const kept = rows.toSorted((a, b) => compare(order(a), order(b))).slice(0, 1);
  return { kept, says: rows.length === 1 ? 'One is left.' : 'Of those the simplest: engine, then fewest threads, then smallest batch.' };
}
