import type { ModelContext } from '../benchmark/context.ts';
import { engines } from '../engine/engines.ts';
import { mebibytes, modelName, ms, number, percent, plural, rowName, seconds } from './format.ts';
import type { ReportView, RowView, SpokenFacts } from './report.ts';

const messages = (reasons: RowView['reasons']): string => reasons.map(({ message }) => message).join(' ');

/** Whether a figure is good shows in comparison. Reports of earlier versions of the program did not look for an earlier one. */
function earlierText({ metric, value }: NonNullable<ModelContext['accuracy']>, earlier: ModelContext['earlier']): string {
  if (earlier === undefined) return '';
  if (earlier === null) {
    return metric === 'TOP1'
      ? ''
      : ' No earlier version was evaluated on these images: there is nothing to compare that with. The worst images of its evaluation show what it misses.';
  }
  const difference = value - earlier.value;
  const than = difference === 0 ? 'as good' : difference > 0 ? 'better' : 'worse';
  return ` On the same images version ${earlier.number} reached ${metric === 'TOP1' ? percent(earlier.value) : earlier.value.toFixed(4)}: this one is ${than}.`;
}

/** Said where a reader meets the word first. */
const explanations: [word: RegExp, meaning: string][] = [
  [/\bP95 latency\b/, 'P95 latency: 95 of 100 answers were at least this fast.'],
  [/\brounds?\b/, 'Round: a short time in which every row was measured once, in a random order.'],
];

function explained(points: string[]): string[] {
  const left = new Map(explanations);
  return points.map((point) => {
    const met = [...left].filter(([word]) => word.test(point));
    for (const [word] of met) left.delete(word);
    return [point, ...met.map(([, meaning]) => meaning)].join(' ');
  });
}

const orders: Record<SpokenFacts['request']['scenario'], string> = {
  SINGLE_STREAM: 'one after the other',
  MULTI_STREAM: 'in streams beside each other',
  OFFLINE: 'all given at once',
};

/** Sentences about the chosen row, or none. Each says what a number means before how it was made. */
const points: ((facts: SpokenFacts, row: RowView) => string | null)[] = [
  ({ choice }) => (choice.n === null ? null : choice.says),
  ({ choice }) => choice.others && `Why not the others: ${choice.others}`,
  ({ choice }) => (choice.n === null ? null : `How sure: ${choice.steps.at(-1)?.says}`),
  ({ request }, { latency, batchSize }) => {
    if (request.scenario === 'OFFLINE') return null;
    const [p50, p95] = [latency?.p50?.ns, latency?.p95?.ns];
    if (p50 == null || p95 == null) return latency && `Waiting: an answer comes after ${ms(latency.meanNs)} on average.`;
    const what = batchSize === 1 ? 'answers' : `answers for ${batchSize} images`;
    return `Waiting: half of all ${what} come within ${ms(p50)}, and 95 of 100 within ${ms(p95)}.`;
  },
  (_facts, { itemsPerSecond, batchSize, instances }) =>
    itemsPerSecond === null
      ? null
      : `Work: ${number(itemsPerSecond)} images a second when it never stands still, ${batchSize * instances === 1 ? 'one image' : `${batchSize * instances} images`} at a time.`,
  (_facts, { memory }) =>
    memory &&
    `Memory: the process takes up to ${mebibytes(memory.increaseBytes)} for the model and its work, on top of ${mebibytes(memory.baselineBytes)} for itself.`,
  (_facts, { cold }) =>
    cold &&
    `Start: the first answer takes ${seconds(cold.loadNs + cold.firstInferenceNs)}, ${seconds(cold.loadNs)} of it to load the model.`,
  ({ models }, { model }) => {
    const { accuracy, earlier } = models[model] ?? {};
    if (!accuracy) return 'Being right: nobody has evaluated this version yet.';
    const { metric, value, images, dataset, datasetVersion, split } = accuracy;
    const on = `${images} images (${dataset} version ${datasetVersion}, ${split})`;
    const right =
      metric === 'TOP1'
        ? `Being right: it names the right class for ${percent(value)} of ${on}.`
        : `Being right: mAP50-95 ${value.toFixed(4)} on ${on}; 1 is every object found, with its class and its exact box, and nothing else.`;
    return `${right}${earlierText(accuracy, earlier)}`;
  },
  (facts, { n }) => {
    const delta = facts.deltas.find((one) => one.n === n);
    const baseline = facts.rows.find((row) => row.n === facts.baseline);
    return delta && baseline ? `Compared with ${rowName(facts, baseline)}: ${delta.says}` : null;
  },
  (_facts, { reasons }) => (reasons.length > 0 ? `Keep in mind: ${messages(reasons)}` : null),
  ({ machine, request }, row) =>
    row.samples &&
    `How it was measured: ${row.samples.count} times in ${seconds(row.elapsedNs as number)} after a warm-up, ${orders[request.scenario]}, with ` +
      `${engines[row.engine].title} (${row.engineVersion}) on ${row.instances > 1 ? `${row.instances} × ` : ''}${plural(row.intraOpThreads, 'thread')} of ${machine.processor} ` +
      `(${plural(machine.cores, 'core')}), no other job of Whetstone beside it. Profile ${request.profile}.`,
];

/** The report for people who want to know what it means: the chosen row, or else the baseline, in sentences. */
export function simpleView(facts: SpokenFacts): ReportView['simple'] {
  const row = facts.rows.find(({ n }) => n === (facts.choice.n ?? facts.baseline));
  if (!row) {
    const reasons = facts.rows.flatMap(({ reasons }) => reasons.map(({ message }) => message));
    return { headline: facts.choice.says, points: [...new Set(reasons)] };
  }
  const headline = facts.choice.n === null ? facts.choice.says : speedOf(facts, row);
  return { headline, points: explained(points.flatMap((say) => say(facts, row) || [])) };
}

function speedOf(facts: SpokenFacts, row: RowView): string {
  const does = `${number(row.itemsPerSecond as number)} images a second`;
  if (facts.request.scenario === 'OFFLINE') return `${modelName(facts, row)} does ${does}.`;
  const { p50, meanNs } = row.latency as NonNullable<RowView['latency']>;
  const what = row.batchSize === 1 ? 'an image' : `${row.batchSize} images`;
  const [how, ns] = p50?.kind === 'EXACT' ? ['typically', p50.ns as number] : ['on average', meanNs];
  return `${modelName(facts, row)} ${how} answers ${what} in ${ms(ns)}, and does ${does}.`;
}
