/** The report of a study: its best trials, how the search went, and which hyperparameters matter. */
import { type PresetName, presets } from '../../jobs/presets.ts';
import { opaqueId } from '../../naming.ts';
import { type ObjectiveName, objectives } from '../../tuning/objectives.ts';
import { duration, percent, plural } from '../format.ts';
import type { Value } from '../forms/csv.ts';
import { none, type ReportDocument, type Section } from '../forms/document.ts';
import type { StudyFacts, TrialFacts } from './facts.ts';
import { datasetName, datasetRow, lineageSection, provenanceSection, shaText, versionName, versionRow } from './parts.ts';
import {
  historyPlots,
  importancePlot,
  objectiveTexts,
  parallelCoordinates,
  paramsText,
  paretoPlots,
  slicePlots,
  valueText,
} from './studyPlots.ts';

/** Rows of the table of trials; CSV has all of them. */
const trialsShown = 100;

export function studyDocument(facts: StudyFacts, sha256: string): ReportDocument {
  const { model, state, dataset, jobId, endedAt, studyId, registered, trials, importance } = facts;
  const [best] = frontTrials(facts);
  const versions = registered.flatMap(({ version, conversion }) => [version, conversion?.version ?? null]);
  const hasValues = trials.some(({ values }) => values !== null);
  return {
    kind: 'Study',
    title: `Study of ${model ?? '(deleted)'}: ${best ? `${valuesText(facts, best)} in trial ${best.number}` : state}`,
    lead: [{ list: points(facts) }],
    sections: [
      ...(best ? [frontSection(facts)] : []),
      ...(hasValues ? [{ heading: 'History', blocks: [{ plots: [...historyPlots(facts), ...paretoPlots(facts)] }] }] : []),
      ...(importance.length > 0 ? [importanceSection(facts)] : []),
      ...(hasValues ? [{ heading: 'Hyperparameters', blocks: [{ plots: [parallelCoordinates(facts), ...slicePlots(facts)] }] }] : []),
      ...(trials.length > 0 ? [trialSection(facts)] : []),
      settingsSection(facts),
      ...(versions.length > 0 ? [lineageSection(versions)] : []),
      provenanceSection([
        ['The study', opaqueId('Study', studyId)],
        ['Its job', opaqueId('Job', jobId)],
        ...versions.flatMap((version) => (version ? [versionRow(version)] : [])),
        datasetRow(dataset),
      ]),
    ],
    footer: [`Content hash of the dataset version: ${dataset.contentHash ?? none}. Ended: ${endedAt ?? 'not yet'}.`, shaText(sha256)],
  };
}

const frontTrials = ({ front, trials }: StudyFacts): TrialFacts[] => front.map((n) => trials[n] as TrialFacts);

const writeValue = (name: ObjectiveName, value: number | undefined): string =>
  value === undefined ? none : objectiveTexts[name].write(value);

const valuesText = ({ objectives: names }: StudyFacts, { values }: TrialFacts): string =>
  names.map((name, i) => `${objectiveTexts[name].title} ${writeValue(name, values?.[i])}`).join(', ');

function points(facts: StudyFacts): string[] {
  const { preset, dataset, sampler, population, trialsWanted, trials, front, registered, seed, failure, state, durationMs } = facts;
  const [best] = frontTrials(facts);
  const { images } = dataset;
  const own = trials.filter(({ copyOf }) => copyOf === null);
  const inState = (...states: TrialFacts['state'][]) => own.filter(({ state }) => states.includes(state)).length;
  const counts: [number, string][] = [
    [inState('COMPLETE'), 'trained to the end'],
    [inState('STOPPED'), 'stopped early'],
    [inState('WORST'), 'without a result (WORST)'],
    [trials.length - own.length, 'equal to an earlier one'],
    [inState('WAITING', 'RUNNING'), 'not ended'],
  ];
  const said = counts
    .filter(([n]) => n > 0)
    .map(([n, what]) => `${n} ${what}`)
    .join(', ');
  const epochs = own.reduce((sum, { epochs }) => sum + epochs, 0);
  return [
    ...(best ? [`${frontText(facts, front.length)} Trial ${best.number} has ${paramsText(best.params)}.`] : ['No trial has a result yet.']),
    `${trials.length} of ${plural(trialsWanted, 'trial')} in generations of ${population}${said && `: ${said}`}. They trained ${plural(epochs, 'epoch')}.`,
    `${sampler} proposed them with the seed ${seed}. ${presets[preset as PresetName].title} learned from ${datasetName(dataset)}, ` +
      `${images?.train ?? none} training and ${images?.val ?? none} validation images.`,
    ...registered.map(
      ({ trial, version, conversion }) =>
        `Trial ${trial} is ${versionName(version)}${conversion?.version ? `, and as ONNX ${versionName(conversion.version)}` : ''}.`,
    ),
    failure ? `It failed: ${failure.message} (${failure.code})` : `${state}, ${duration(durationMs)} after the start of its job.`,
  ];
}

const frontText = ({ objectives: names }: StudyFacts, length: number): string =>
  names.length === 1
    ? `The best value is reached by ${plural(length, 'trial')}.`
    : `The Pareto front has ${plural(length, 'trial')}: no other one beats them in one objective without losing in another.`;

function frontSection(facts: StudyFacts): Section {
  const { objectives: names, space, registered } = facts;
  const versionOf = (n: number): string => {
    const found = registered.find(({ trial }) => trial === n);
    return found ? versionName(found.version) : none;
  };
  return {
    heading: names.length === 1 ? 'Best trials' : 'Pareto front',
    blocks: [
      {
        table: {
          caption: `The best by ${objectiveTexts[names[0] as ObjectiveName].title} first. A dash: it has no effect.`,
          head: ['Trial', ...names.map((name) => objectiveTexts[name].title), ...space.map(({ name }) => name), 'Version'],
          rows: frontTrials(facts).map((trial) => [`${trial.number}`, ...cellsOf(facts, trial), versionOf(trial.number)]),
        },
      },
    ],
  };
}

/** The objectives and the hyperparameters of a trial. */
const cellsOf = ({ objectives: names, space }: StudyFacts, { values, params }: TrialFacts): string[] => [
  ...names.map((name, i) => writeValue(name, values?.[i])),
  ...space.map(({ name }) => (params[name] === undefined ? none : valueText(params[name]))),
];

const importanceSection = (facts: StudyFacts): Section => ({
  heading: 'Importance',
  blocks: [
    { plots: [importancePlot(facts)] },
    {
      table: {
        caption: 'How much each hyperparameter matters for being among the best trials (PED-ANOVA).',
        head: ['Hyperparameter', 'Share'],
        rows: facts.importance.map(({ name, share }) => [name, percent(share)]),
      },
    },
  ],
});

function trialSection(facts: StudyFacts): Section {
  const { trials, objectives: names, space } = facts;
  const sign = objectives[names[0] as ObjectiveName].direction === 'MAXIMIZE' ? -1 : 1;
  const worth = ({ values }: TrialFacts) => (values ? sign * (values[0] as number) : Number.POSITIVE_INFINITY);
  const sorted = trials.toSorted((a, b) => (worth(a) === worth(b) ? a.number - b.number : worth(a) - worth(b)));
  const left = trials.length - trialsShown;
  return {
    heading: 'Trials',
    folded: true,
    blocks: [
      {
        table: {
          caption: `The trials, the best first${left > 0 ? `; ${left} others are in the export as CSV` : ''}. A dash: no value, or no effect.`,
          head: [
            'Trial',
            'Generation',
            'State',
            'Epochs',
            ...names.map((name) => objectiveTexts[name].title),
            ...space.map(({ name }) => name),
          ],
          rows: sorted
            .slice(0, trialsShown)
            .map((trial) => [
              `${trial.number}`,
              `${trial.generation}`,
              trial.copyOf === null ? trial.state : `copy of ${trial.copyOf}`,
              `${trial.epochs}`,
              ...cellsOf(facts, trial),
            ]),
        },
      },
    ],
  };
}

function settingsSection({ space, fixed, halving, seed, device, cpuThreads }: StudyFacts): Section {
  const rule = halving
    ? `The best 1 in ${halving.reduction} of a generation continue after epoch ${halving.firstEpoch}, and again each time after ${halving.reduction} times the epochs.`
    : 'Every trial trains to its end.';
  return {
    heading: 'Search space',
    folded: true,
    blocks: [
      {
        table: {
          caption: 'What was searched.',
          head: ['Hyperparameter', 'Values', 'Scale', 'Has an effect'],
          rows: space.map(({ name, low, high, log, step, choices, when }) => [
            name,
            choices
              ? choices.join(', ')
              : `${valueText(low ?? 0)} to ${valueText(high ?? 0)}${step === null ? '' : `, step ${valueText(step)}`}`,
            choices ? none : log ? 'logarithmic' : 'linear',
            when ? `with ${when.name} ${when.values.join(', ')}` : 'always',
          ]),
        },
      },
      {
        text: `Fixed: ${paramsText(fixed) || 'nothing'}. ${rule} Seed ${seed}, device ${device}, ${plural(cpuThreads, 'thread')} of PyTorch.`,
      },
    ],
  };
}

/** A line for each trial; a hyperparameter without effect is empty. */
export const trialTable = ({ trials, objectives: names, space, front }: StudyFacts): { head: string[]; rows: Value[][] } => ({
  head: ['trial', 'generation', 'state', 'copyOf', 'epochs', 'front', ...names, ...space.map(({ name }) => name)],
  rows: trials.map(({ number: n, generation, state, copyOf, epochs, values, params }) => [
    n,
    generation,
    state,
    copyOf,
    epochs,
    String(front.includes(n)),
    ...names.map((_, i) => values?.[i]),
    ...space.map(({ name }) => params[name]),
  ]),
});
