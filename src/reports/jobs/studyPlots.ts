/** The plots of a study, and how its objectives are written. */

import type { HyperparameterValue } from '../../jobs/searchSpace.ts';
import { parallelPlot } from '../../plots/parallel.ts';
import { rowPlot } from '../../plots/rows.ts';
import type { Axis } from '../../plots/scale.ts';
import { paretoFront, scatterPlot } from '../../plots/scatter.ts';
import { type ObjectiveName, objectives } from '../../tuning/objectives.ts';
import { mebibytes, number, percent } from '../format.ts';
import type { StudyFacts, TrialFacts } from './facts.ts';

const millions = (value: number): string => `${number(value / 1e6)} M`;

/** `per` is the unit of the axis. */
export const objectiveTexts: Record<ObjectiveName, { title: string; write: (value: number) => string; label: string; per: number }> = {
  TOP1: { title: 'top-1', write: percent, label: 'top-1 (%)', per: 0.01 },
  MACRO_TOP1: { title: 'mean recall of the classes', write: percent, label: 'mean recall of the classes (%)', per: 0.01 },
  LOSS: { title: 'cross-entropy', write: number, label: 'cross-entropy', per: 1 },
  MAP5095: { title: 'mAP50-95', write: (value) => value.toFixed(4), label: 'mAP50-95', per: 1 },
  MAP50: { title: 'mAP50', write: (value) => value.toFixed(4), label: 'mAP50', per: 1 },
  PARAMETERS: { title: 'parameters', write: millions, label: 'parameters (millions)', per: 1e6 },
  MACS: { title: 'MACs', write: millions, label: 'MACs (millions)', per: 1e6 },
  BYTES: { title: 'size', write: mebibytes, label: 'size (MiB)', per: 2 ** 20 },
  LATENCY: { title: 'latency', write: (value) => `${number(value)} ms`, label: 'latency (ms)', per: 1 },
};

/** Axes of parallel coordinates, and slices: more are too narrow to read. */
const dimensionsDrawn = 8;

const kindsOf = ({ halving }: StudyFacts): string[] => ['trained to the end', 'best', ...(halving ? ['stopped early'] : [])];

const objectiveAxis = (name: ObjectiveName): Axis => ({ label: objectiveTexts[name].label });
const signOf = (name: ObjectiveName) => (objectives[name].direction === 'MAXIMIZE' ? 1 : -1);

/** Trials that have values, without copies. */
interface DrawnTrial extends TrialFacts {
  kind: number;
  name: string;
  /** On the axes of the objectives. */
  at: number[];
}

function drawnTrials({ trials, front, objectives: names }: StudyFacts): DrawnTrial[] {
  return trials.flatMap((one) => {
    const { number: n, values, copyOf, state, params } = one;
    if (values === null || copyOf !== null) return [];
    const reached = names.map((name, i) => `${objectiveTexts[name].title} ${objectiveTexts[name].write(values[i] as number)}`);
    return [
      {
        ...one,
        kind: front.includes(n) ? 1 : state === 'STOPPED' ? 2 : 0,
        name: `trial ${n}: ${reached.join(', ')}; ${paramsText(params)}`,
        at: names.map((name, i) => (values[i] as number) / objectiveTexts[name].per),
      },
    ];
  });
}

export const valueText = (value: HyperparameterValue): string =>
  typeof value !== 'number' || Number.isInteger(value) ? `${value}` : number(value);
export const paramsText = (params: TrialFacts['params']): string =>
  Object.entries(params)
    .map(([name, value]) => `${name} ${valueText(value)}`)
    .join(', ');

export function historyPlots(facts: StudyFacts): string[] {
  const drawn = drawnTrials(facts);
  return facts.objectives.map((name, i) => {
    let best = Number.NaN;
    const staircase = drawn.flatMap(({ number: x, at }) => {
      const before = best;
      const y = at[i] as number;
      best = Number.isNaN(best) || signOf(name) * (y - best) > 0 ? y : best;
      return Number.isNaN(before)
        ? [{ x, y: best }]
        : [
            { x, y: before },
            { x, y: best },
          ];
    });
    const { title } = objectiveTexts[name];
    return scatterPlot({
      title: `History of ${title}`,
      description: `${title} of each trial in the order of the proposals, and the best so far. The table of trials has the numbers.`,
      x: { label: 'trial', include: [0] },
      y: objectiveAxis(name),
      kinds: kindsOf(facts),
      points: drawn.map(({ number: n, at, kind, name: says }) => ({ x: n, y: at[i] as number, label: '', name: says, kind })),
      line: { name: 'best so far', points: staircase },
    });
  });
}

/** The first objective against each other one. */
export function paretoPlots(facts: StudyFacts): string[] {
  const drawn = drawnTrials(facts);
  const [first, ...others] = facts.objectives;
  return others.map((other, i) => {
    const points = drawn.map(({ number: n, at, kind, name }) => ({
      x: at[i + 1] as number,
      y: at[0] as number,
      label: kind === 1 ? `${n}` : '',
      name,
      kind,
    }));
    const [yName, xName] = [first as ObjectiveName, other];
    return scatterPlot({
      title: `${objectiveTexts[yName].title} against ${objectiveTexts[xName].title}`,
      description: `The trials by two objectives, with the line of those that no other one beats in both. The numbers are those of the trials.`,
      x: objectiveAxis(xName),
      y: objectiveAxis(yName),
      kinds: kindsOf(facts),
      points,
      line: { name: 'not beaten in both', points: paretoFront(points, { x: signOf(xName), y: signOf(yName) }) },
    });
  });
}

export const importancePlot = ({ importance }: StudyFacts): string =>
  rowPlot({
    title: 'Importance of the hyperparameters',
    description: 'The share of each hyperparameter in being among the best trials (PED-ANOVA). The table has the numbers.',
    x: { label: 'share (%)' },
    names: ['share'],
    rows: importance.map(({ name, share }) => ({ label: name, values: [{ value: 100 * share, low: null, high: null }] })),
    mark: 'BAR',
  });

/** The most important dimensions first, where that is known. */
function drawnDimensions({ space, importance }: StudyFacts): StudyFacts['space'] {
  const place = (name: string) => importance.findIndex((one) => one.name === name);
  return space.toSorted((a, b) => (importance.length === 0 ? 0 : place(a.name) - place(b.name))).slice(0, dimensionsDrawn);
}

type Dimension = StudyFacts['space'][number];

const dimensionAxis = ({ name, log, choices }: Dimension): Axis =>
  choices ? { label: name, choices: choices.map(String) } : { label: name, log };
const placeOn = ({ name, choices }: Dimension, { params }: TrialFacts): number | null => {
  const value = params[name];
  if (value === undefined) return null;
  return choices ? choices.indexOf(value) : Number(value);
};

export function parallelCoordinates(facts: StudyFacts): string {
  const dimensions = drawnDimensions(facts);
  return parallelPlot({
    title: 'Parallel coordinates',
    description: 'A line for each trial through the values of its hyperparameters and its objectives. The table of trials has the numbers.',
    kinds: kindsOf(facts),
    axes: [...dimensions.map(dimensionAxis), ...facts.objectives.map(objectiveAxis)],
    lines: drawnTrials(facts).map((one) => ({
      kind: one.kind,
      name: one.name,
      values: [...dimensions.map((dimension) => placeOn(dimension, one)), ...one.at],
    })),
  });
}

/** The first objective by each hyperparameter. */
export function slicePlots(facts: StudyFacts): string[] {
  const drawn = drawnTrials(facts);
  const name = facts.objectives[0] as ObjectiveName;
  return drawnDimensions(facts).map((dimension) =>
    scatterPlot({
      title: `${objectiveTexts[name].title} by ${dimension.name}`,
      description: `${objectiveTexts[name].title} of the trials by their ${dimension.name}; trials in which it has no effect are left out.`,
      x: dimensionAxis(dimension),
      y: objectiveAxis(name),
      kinds: kindsOf(facts),
      points: drawn.map((one) => ({ x: placeOn(dimension, one), y: one.at[0] as number, label: '', name: one.name, kind: one.kind })),
    }),
  );
}
