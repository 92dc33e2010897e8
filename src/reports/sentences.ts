/** The sentences of a report, made of its facts when somebody reads it: better wording never makes an older report look forged. */
import type { Reason } from '../benchmark/verdict.ts';
import { gateFailures } from '../models/gate.ts';
import { behindMax, tieShare } from './choice.ts';
import { differenceMin } from './deltas.ts';
import { accuracyText, distinctionOf, mebibytes, modelName, ms, number, percent, plural, rowName } from './format.ts';
import type { Choice, ChoiceStep, Delta, MetricName, Report, ReportRow } from './report.ts';

const share = (value: number): string => `${(100 * value).toFixed(1)} %`;

/** What each reason means, by its code. */
const reasonTexts: Record<string, (numbers: { value: number; limit: number }, row: ReportRow) => string> = {
  GATE_FAILED: (_numbers, { gate }) =>
    `Compared with the reference on ${gate?.inputs} inputs: ${gateFailures(gate?.outputs ?? []).join(' ')} A speed counts only when the results are right.`,
  STEAL: ({ value }) => `Other virtual machines took ${share(value)} of the processor's time, which widens the intervals.`,
  THROTTLED: ({ value }) =>
    `The container's processor quota stopped the process in ${share(value)} of the periods, which widens the intervals.`,
  CONTENTION: ({ value }) =>
    `Other processes took ${share(value)} of the time that its threads wanted. Rows are compared in the rounds without that, where there are enough.`,
  DRIFT: ({ value }) => `The throughput changed by ${share(value)} while it was measured.`,
  WARMUP_CAPPED: ({ limit }) => `Its speed had not settled when the warm-up ended after ${limit} s.`,
  SELF_REFERENCE: () =>
    'Its outputs were compared with those of the same file without optimisations, on seeded inputs: it has no probe set.',
  FEW_GATE_INPUTS: ({ value, limit }) =>
    `Its outputs were compared on ${value} inputs only: its probe set has no more. ${limit} are wanted.`,
  FEW_SAMPLES: ({ value, limit }, { elapsedNs }) =>
    `${plural(value, 'sample')} in ${number((elapsedNs ?? 0) / 1e9)} s; ${limit} were wanted, for which only rows that may be the best are measured longer.`,
  SAMPLES_CAPPED: ({ limit }) => `It ended early, at ${limit} samples.`,
  NOISE_UNKNOWN: () => 'This system does not tell all of what else the machine did.',
};

/** The reasons why nothing could be measured have the message of the engine. */
export const reasonText = (row: ReportRow, { code, value, limit }: Reason): string =>
  row.unavailable?.message ?? reasonTexts[code]?.({ value: value ?? 0, limit: limit ?? 0 }, row) ?? code;

export function deltaText({ verdict, timeRatio, timeRatioLow, timeRatioHigh, rounds }: Delta): string {
  if (timeRatio === null || timeRatioLow === null || timeRatioHigh === null) {
    return 'Too few rounds measured both: they cannot be compared.';
  }
  const interval = `${number(100 * (timeRatioLow - 1))} to ${number(100 * (timeRatioHigh - 1))} % in ${rounds} rounds`;
  if (verdict === 'NO_DIFFERENCE') return `The time of one item differs by less than ${100 * differenceMin} % (${interval}).`;
  if (verdict === 'UNDECIDED') return `The measurement does not tell whether one item takes longer or shorter (${interval}).`;
  const [least, most] = [timeRatioLow, timeRatioHigh].map((ratio) => 100 * Math.abs(ratio - 1)).sort((a, b) => a - b) as [number, number];
  const much = `${number(100 * Math.abs(timeRatio - 1))} % ${verdict === 'FASTER' ? 'less' : 'more'} time`;
  return `For each item it needs ${much} (${number(least)} to ${number(most)} % in ${rounds} rounds).`;
}

// --------------------------------------------------------------------------------------------------------------- Choice

const metricTexts: Record<MetricName, { name: string; of(row: ReportRow): string }> = {
  P95: { name: 'P95 latency', of: ({ latency }) => ms(latency?.p95?.ns as number) },
  P50: { name: 'median latency', of: ({ latency }) => ms(latency?.p50?.ns as number) },
  MEAN: { name: 'mean latency', of: ({ latency }) => ms(latency?.meanNs as number) },
  THROUGHPUT: { name: 'throughput', of: ({ itemsPerSecond }) => `${number(itemsPerSecond as number)} images a second` },
  MEMORY: { name: 'memory use', of: ({ memory }) => mebibytes(memory?.increaseBytes as number) },
};

const rowsOf = ({ rows }: Report, numbers: number[]): ReportRow[] => rows.filter(({ n }) => numbers.includes(n));

export function choiceText(report: Report): string {
  const [chosen] = rowsOf(report, report.choice.n === null ? [] : [report.choice.n]);
  if (chosen) return `Use ${rowName(report, chosen)}.`;
  if (report.rows.length === 0) return 'No winner: nothing was asked for.';
  const wrong = report.rows.some(({ verdict }) => verdict === 'INVALID');
  return `No winner: ${wrong ? 'no configuration computes the right results' : 'nothing could be measured'}.`;
}

export function stepText(report: Report, step: ChoiceStep): string {
  switch (step.rule) {
    case 'RIGHT': {
      const right = step.kept.length;
      return `${right} of ${plural(report.rows.length, 'row')} ${right === 1 ? 'computes' : 'compute'} the right results.`;
    }
    case 'ACCURACY':
      return accuracyStepText(report, step);
    case 'BATCH':
      return 'A larger batch never answers one image sooner: of each configuration its smallest batch stays.';
    case 'TARGET': {
      const [best] = rowsOf(report, [step.best ?? -1]);
      if (!best || step.metric === null) return 'Not every row has the number that the target asks for.';
      const { name, of } = metricTexts[step.metric];
      const others = step.kept.length === 1 ? '' : ` ${step.kept.length} are within ${100 * tieShare} % of it.`;
      if (!step.leftOut) return `The best ${name} is ${of(best)}.${others}`;
      return `Where nothing disturbed the rounds, row ${best.n} has the best ${name}: ${of(best)} over all rounds. Up to ${plural(step.leftOut, 'round')} were left out.${others}`;
    }
    case 'SIMPLER':
      return 'Of those the simplest: engine, then fewest threads and instances, then smallest batch.';
    case 'CONFIDENCE':
      return confidenceText(report, step);
  }
}

function accuracyStepText(report: Report, { found, kept }: Extract<ChoiceStep, { rule: 'ACCURACY' }>): string {
  const rows = rowsOf(report, kept);
  if (found === 'ONE_VERSION') return `All are ${modelName(report, rows[0] as ReportRow)}: none is more accurate than the other.`;
  if (found === 'UNKNOWN') return 'No accuracy is known: evaluate the versions to choose by it.';
  if (found === 'DIFFERENT_IMAGES') return 'The versions were evaluated on different images: their accuracies cannot be compared.';
  const known = rows.flatMap(({ model }) => report.models[model]?.accuracy ?? []);
  const most = known.reduce((a, b) => (b.value > a.value ? b : a));
  const lost = percent(report.request.accuracyDropMax);
  return `The most accurate version reaches ${accuracyText(most)}; those that lose at most ${lost} stay.`;
}

function confidenceText(report: Report, { metric, rivals }: Extract<ChoiceStep, { rule: 'CONFIDENCE' }>): string {
  const { confidence, steps } = report.choice;
  const lead = `Confidence ${confidence}:`;
  if (confidence !== 'HIGH' && metric === null) return `${lead} the rows could not be compared.`;
  const within = `${100 * behindMax} %`;
  const says: Record<NonNullable<Choice['confidence']>, () => string> = {
    HIGH: () =>
      contendersOf(steps) === 1
        ? 'there is no other configuration to choose.'
        : `the ${metricTexts[metric as MetricName].name} of every other row is worse beyond doubt. Nothing more has to be measured.`,
    MEDIUM: () => `no other row can be better by more than ${within}. ${remedyText(report, [report.choice.n as number, ...rivals])}`,
    LOW: () =>
      `the rounds do not rule out that row ${rivals.join(', ')} is better by more than ${within}. ${remedyText(report, [report.choice.n as number, ...rivals])}`,
  };
  return `${lead} ${says[confidence ?? 'LOW']()}`;
}

/** Why each other row was not chosen: by the rule that left it out, at most `namedMax` of them by name. */
export function othersText(report: Report): string | null {
  const { n, steps } = report.choice;
  const groups: string[] = [];
  const last = steps.at(-1);
  const rivals = last?.rule === 'CONFIDENCE' ? last.rivals : [];
  let left = report.rows;
  for (const step of steps) {
    const out = left.filter((row) => !step.kept.includes(row.n));
    left = left.filter((row) => step.kept.includes(row.n));
    const isDoubtful = ({ n }: ReportRow) => step.rule === 'TARGET' && rivals.includes(n);
    for (const doubtful of [false, true]) {
      const rows = out.filter((row) => isDoubtful(row) === doubtful);
      if (rows.length > 0) groups.push(leftOutText(report, step, rows, doubtful));
    }
  }
  return n === null || groups.length === 0 ? null : `${groups.join('; ')}.`;
}

const namedMax = 4;

/** `doubtful`: the rounds do not tell them from the chosen one. */
function leftOutText(report: Report, step: ChoiceStep, rows: ReportRow[], doubtful: boolean): string {
  const metric = step.rule === 'TARGET' && step.metric !== null ? metricTexts[step.metric] : null;
  const named = rows.slice(0, namedMax).map((row) => {
    const about = [distinctionOf(report, row), ...(metric ? [metric.of(row)] : [])].filter(Boolean).join(': ');
    return about ? `#${row.n} (${about})` : `#${row.n}`;
  });
  const names = [...named, ...(rows.length > namedMax ? [`${rows.length - namedMax} more`] : [])].join(', ');
  const one = rows.length === 1;
  const says: Record<ChoiceStep['rule'], string> = {
    RIGHT: `${one ? 'does' : 'do'} not compute the right results, or could not be measured`,
    ACCURACY: `${one ? 'is' : 'are'} less accurate than is allowed`,
    BATCH: `${one ? 'has' : 'have'} a larger batch, which never answers one image sooner`,
    TARGET: doubtful
      ? `seemed to have a worse ${metric?.name}, but the rounds do not tell`
      : `${one ? 'has' : 'have'} a worse ${metric?.name}, compared round by round${'leftOut' in step ? ' where nothing disturbed them' : ''}`,
    SIMPLER: `${one ? 'is' : 'are'} within ${100 * tieShare} % of it, and less simple`,
    CONFIDENCE: '',
  };
  return `${names} ${says[step.rule]}`;
}

/** How many rows were left before the target narrowed them down. */
const contendersOf = (steps: ChoiceStep[]): number =>
  (
    steps
      .slice(
        0,
        steps.findIndex(({ rule }) => rule === 'TARGET'),
      )
      .at(-1) as ChoiceStep
  ).kept.length;

const disturbances: Record<string, string> = {
  STEAL: 'other virtual machines took processor time',
  THROTTLED: 'the container’s processor quota stopped it',
  CONTENTION: 'other processes took processor time',
};

function remedyText(report: Report, numbers: number[]): string {
  const met = rowsOf(report, numbers).flatMap(({ reasons }) => reasons.map(({ code }) => code));
  const seen = Object.keys(disturbances).filter((code) => met.includes(code));
  const quieter = seen.map((code) => disturbances[code]).join(' and ');
  const longer = report.request.profile === 'QUICK' ? 'measure with the profile FULL' : 'measure again';
  return quieter ? `While they were measured, ${quieter}: ${longer} on a quieter machine.` : `To be surer, ${longer}.`;
}
