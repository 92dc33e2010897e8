import { engines } from '../engine/engines.ts';
import { mebibytes, modelName, ms, number, percent, plural, rowName, seconds } from './format.ts';
import type { ReportView, RowView, SpokenFacts } from './report.ts';

const messages = (reasons: RowView['reasons']): string => reasons.map(({ message }) => message).join(' ');

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
    const accuracy = models[model]?.accuracy;
    if (!accuracy) return 'Being right: nobody has evaluated this version yet.';
    const { metric, value, images, dataset, datasetVersion, split } = accuracy;
    const on = `${images} images (${dataset} version ${datasetVersion}, ${split})`;
    return metric === 'TOP1'
      ? `Being right: it names the right class for ${percent(value)} of ${on}.`
      : `Being right: mAP50-95 ${value.toFixed(4)} on ${on}; 1 is every object found, with its class and its exact box, and nothing else.`;
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
  return { headline, points: points.flatMap((say) => say(facts, row) || []) };
}

function speedOf(facts: SpokenFacts, row: RowView): string {
  const does = `${number(row.itemsPerSecond as number)} images a second`;
  if (facts.request.scenario === 'OFFLINE') return `${modelName(facts, row)} does ${does}.`;
  const { p50, meanNs } = row.latency as NonNullable<RowView['latency']>;
  const what = row.batchSize === 1 ? 'an image' : `${row.batchSize} images`;
  const [how, ns] = p50?.kind === 'EXACT' ? ['typically', p50.ns as number] : ['on average', meanNs];
  return `${modelName(facts, row)} ${how} answers ${what} in ${ms(ns)}, and does ${does}.`;
}
