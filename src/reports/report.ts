/**
 * The facts of a report: numbers, codes and names, no sentence (`view.ts` has these). Their canonical JSON is what is hashed and exported.
 * Times are nanoseconds, sizes bytes.
 */
import type { Machine, Telemetry } from '../benchmark/cells.ts';
import type { BenchmarkRequest, ModelContext } from '../benchmark/context.ts';
import { type PairedRatio, pairedRatio, perItem, type Rounds, type Statistic } from '../benchmark/pairing.ts';
import type { LatencySummary, PercentileName, Stability } from '../benchmark/statistics.ts';
import type { Verdict } from '../benchmark/tables.ts';
import type { Reason } from '../benchmark/verdict.ts';
import type { EngineName } from '../engine/engines.ts';

/** Counts the forms that reports have had: one made by a later form is another report of the same benchmark. */
export const REPORT_SCHEMA_VERSION = 4;

export interface ReportRow extends Omit<Telemetry, 'memory'> {
  n: number;
  /** Index into `models`. */
  model: number;
  engine: EngineName;
  engineVersion: string;
  precision: string;
  batchSize: number;
  intraOpThreads: number;
  instances: number;
  verdict: Verdict;
  reasons: Reason[];
  /** The file that every number of this row can be made from. */
  samples: { sha256: string; sizeBytes: number; count: number } | null;
  /** The interval of the mean is null where the measurement has fewer than five seconds. */
  latency:
    | ({
        meanNs: number;
        meanLowNs: number | null;
        meanHighNs: number | null;
        minNs: number;
        maxNs: number;
        /** The latencies at `distributionPerMille`. Reports of forms 1 to 3 have none. */
        distributionNs?: number[];
      } & Partial<LatencySummary['percentiles']>)
    | null;
  /** What its rounds have measured, at most `courseMax` of them. Reports of forms 1 to 3 have none. */
  course?: { round: number; p50Ns: number; p95Ns: number }[];
  itemsPerSecond: number | null;
  elapsedNs: number | null;
  stability: Stability | null;
  /** `increaseBytes`: what the process took for the model and its runs. */
  memory: { baselineBytes: number; peakBytes: number; increaseBytes: number } | null;
}

/** Where a distribution of latencies is kept: enough to draw it. */
export const distributionPerMille = [
  0, 10, 50, 100, 150, 200, 250, 300, 350, 400, 450, 500, 550, 600, 650, 700, 750, 800, 850, 900, 950, 990, 1000,
];
export const courseMax = 60;

export const deltaVerdicts = ['FASTER', 'SLOWER', 'NO_DIFFERENCE', 'UNDECIDED', 'NOT_COMPARABLE'] as const;

/** A row against the baseline; a ratio of 1.1 is 10 % more. */
export interface Delta {
  n: number;
  verdict: (typeof deltaVerdicts)[number];
  /** Of the median time that one item takes, within rounds, with its interval; null where too few rounds have both rows. */
  timeRatio: number | null;
  timeRatioLow: number | null;
  timeRatioHigh: number | null;
  /** In how many rounds both were measured, without those that are left out as disturbed. */
  rounds: number;
  throughputRatio: number | null;
  memoryRatio: number | null;
  /** Difference of the top-1 accuracies on the same images. */
  accuracyDifference: number | null;
}

/** What rows are compared by: the first of a target's that every row has. */
export type MetricName = 'P95' | 'P50' | 'MEAN' | 'THROUGHPUT' | 'MEMORY';

/** A rule that narrowed the rows down; `kept` are the numbers of those that were left. */
export type ChoiceStep = { kept: number[] } & (
  | { rule: 'RIGHT' | 'BATCH' | 'SIMPLER' }
  | { rule: 'ACCURACY'; found: 'ONE_VERSION' | 'UNKNOWN' | 'DIFFERENT_IMAGES' | 'COMPARED' }
  /** `best` is the best row's number; without a metric nothing was narrowed. */
  | {
      rule: 'TARGET';
      metric: MetricName | null;
      best: number | null;
      /** Up to so many rounds were disturbed, and left out. */
      leftOut?: number;
    }
  /** Rows that may be better than the chosen one: by more than 5 % where the confidence is LOW. */
  | { rule: 'CONFIDENCE'; metric: MetricName | null; rivals: number[] }
);

/** HIGH: all other rows are worse beyond doubt. MEDIUM: the chosen row is within 5 % of the best beyond doubt. LOW: anything else. */
export const confidences = ['HIGH', 'MEDIUM', 'LOW'] as const;

export interface Choice {
  /** The chosen row; null when no row computes the right results. */
  n: number | null;
  confidence: (typeof confidences)[number] | null;
  steps: ChoiceStep[];
}

export interface Report {
  schemaVersion: typeof REPORT_SCHEMA_VERSION;
  /** ISO 8601, UTC. */
  measuredAt: string;
  jobId: string;
  codeVersion: string;
  machine: Machine;
  request: Omit<BenchmarkRequest, 'modelVersionIds'>;
  confidence: number;
  models: ModelContext[];
  rows: ReportRow[];
  /** The row that the others are compared with; null when nothing was measured. */
  baseline: number | null;
  deltas: Delta[];
  choice: Choice;
}

export type RowView = Omit<ReportRow, 'reasons'> & { reasons: (Pick<Reason, 'code'> & { message: string })[] };
export type DeltaView = Delta & { says: string };
export type StepView = ChoiceStep & { says: string };

/** Facts with their sentences (`sentences.ts`). */
export interface SpokenFacts extends Omit<Report, 'rows' | 'deltas' | 'choice'> {
  rows: RowView[];
  deltas: DeltaView[];
  /** `others`: why not the other rows; null where there is none. */
  choice: Omit<Choice, 'steps'> & { says: string; others: string | null; steps: StepView[] };
}

/** A report as people read it (`view.ts`). */
export interface ReportView extends SpokenFacts {
  /** For those who want to know what it means. */
  simple: { headline: string; points: string[] };
}

/** The percentiles that a profile makes claims about. */
export const claimed: Record<BenchmarkRequest['profile'], PercentileName[]> = {
  QUICK: ['p50', 'p95'],
  FULL: ['p50', 'p95', 'p99', 'p999'],
};

/** What a report is about, before anything is compared: the report's parts are made from this. */
export type Measured = Pick<Report, 'models' | 'rows' | 'request' | 'machine'> & {
  /** By the number of the row; empty where rows were not measured in rounds. */
  rounds: ReadonlyMap<number, Rounds>;
};

/** Accuracies on other images cannot be compared. */
export const onSameImages = (a: Accuracy, b: Accuracy): boolean => a.datasetHash === b.datasetHash && a.split === b.split;
type Accuracy = Pick<NonNullable<ModelContext['accuracy']>, 'datasetHash' | 'split'>;

/** How much longer a row takes than another one, within their common rounds. Null where these are too few. */
export function ratioWithin({ rounds }: Measured, of: ReportRow, to: ReportRow, statistic: Statistic): PairedRatio | null {
  const [a, b] = [rounds.get(to.n), rounds.get(of.n)];
  return a && b ? pairedRatio(a, b, statistic) : null;
}

/** The same for each item (image) of their batches. */
export function itemRatioWithin(measured: Measured, of: ReportRow, to: ReportRow, statistic: Statistic): PairedRatio | null {
  const found = ratioWithin(measured, of, to, statistic);
  return found && perItem(found, of, to);
}
