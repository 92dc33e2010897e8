/** Two to four trainings beside each other: their metrics, the settings in which they differ, their curves over each other. */
import { opaqueId } from '../../naming.ts';
import { duration } from '../format.ts';
import { none, type ReportDocument, type Section } from '../forms/document.ts';
import type { TrainingFacts } from './facts.ts';
import { datasetName, datasetRow, mainMetric, metricRows, provenanceSection, shaText, versionName } from './parts.ts';
import { comparedPlots } from './plots.ts';
import { startText } from './trainingDocument.ts';

const letters = ['A', 'B', 'C', 'D'];

export const runsMax = letters.length;

const runName = ({ model, version }: TrainingFacts, n: number): string =>
  `${letters[n]}: ${version ? versionName(version) : (model ?? '(deleted)')}`;

export function comparisonDocument(runs: TrainingFacts[], sha256: string): ReportDocument {
  const names = runs.map(runName);
  return {
    kind: 'Comparison of trainings',
    title: names.join(', '),
    lead: [{ list: runs.map((run, n) => `${names[n]} reaches ${mainMetric(run.evaluation) ?? 'nothing yet'}. ${datasetText(run)}`) }],
    sections: [
      metricSection(runs, names),
      settingSection(runs, names),
      { heading: 'Curves', blocks: [{ plots: comparedPlots(runs.map(({ curves }, n) => ({ name: names[n] as string, curves }))) }] },
      provenanceSection([
        ...runs.map(({ jobId }, n) => [`The training ${names[n]}`, opaqueId('Job', jobId)]),
        ...new Map(runs.map(({ dataset }) => [dataset.versionId, datasetRow(dataset)])).values(),
      ]),
    ],
    footer: [shaText(sha256)],
  };
}

const datasetText = ({ dataset, evaluation }: TrainingFacts): string =>
  evaluation
    ? `It was judged by ${evaluation.metrics.images} images of ${datasetName(dataset)}.`
    : `It learns from ${datasetName(dataset)}.`;

/** A line for each thing that some run has, with a column for each run. */
function besides(runs: TrainingFacts[], of: (run: TrainingFacts) => [name: string, text: string][]): string[][] {
  const all = runs.map((run) => new Map(of(run)));
  const titles = new Set(all.flatMap((one) => [...one.keys()]));
  return [...titles].map((title) => [title, ...all.map((one) => one.get(title) ?? none)]);
}

const metricSection = (runs: TrainingFacts[], names: string[]): Section => ({
  heading: 'Final metrics',
  blocks: [
    {
      table: {
        caption: 'The metrics of the best weights on the validation split of each run.',
        head: ['Metric', ...names],
        rows: besides(runs, ({ evaluation, result, durationMs, state }) => [
          ...(evaluation ? metricRows(evaluation.metrics) : []).map(({ title, text }): [string, string] => [title, text]),
          ['best epoch', result ? `${result.bestEpoch} of ${result.epochs}` : none],
          ['time', duration(durationMs)],
          ['state', state],
        ]),
      },
    },
    ...(new Set(runs.map(({ dataset }) => dataset.contentHash)).size > 1
      ? [{ text: 'The runs were judged by different images: their metrics cannot be compared.' }]
      : []),
  ],
});

function settingSection(runs: TrainingFacts[], names: string[]): Section {
  const rows = besides(runs, (run) => [
    ['preset', run.preset],
    ['dataset', datasetName(run.dataset)],
    ['started from', startText(run)],
    ['seed', String(run.seed)],
    ['device', run.device],
    ['threads of PyTorch', String(run.cpuThreads)],
    ['processes', String(run.processes)],
    ...Object.entries(run.hyperparameters).map(([name, value]): [string, string] => [name, String(value)]),
  ]).filter(([, ...values]) => new Set(values).size > 1);
  return {
    heading: 'Settings that differ',
    blocks:
      rows.length === 0
        ? [{ text: 'The runs were asked for with the same settings.' }]
        : [{ table: { caption: 'All other settings are the same.', head: ['Setting', ...names], rows } }],
  };
}
