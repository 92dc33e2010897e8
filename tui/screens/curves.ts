/** From the events of a job to what its charts show. */
import type { Series } from '../ui/plot.ts';

export interface Epoch {
  step: number;
  epoch: number;
  metrics: readonly { name: string; value: number }[];
}

export interface Chart {
  title: string;
  series: Series[];
}

/** What a curve measures: `train.loss` and `val.loss` both measure `loss`, and share a chart. */
const measureOf = (name: string): string => name.split('.').at(-1) as string;

const order = ['loss', 'top1', 'map5095', 'map50'];
const place = (measure: string): number =>
  measure === 'learningRate' ? order.length + 1 : order.includes(measure) ? order.indexOf(measure) : order.length;

const byPlace = (a: Chart, b: Chart): number => place(measureOf(a.title)) - place(measureOf(b.title)) || (a.title < b.title ? -1 : 1);

/** The points of each metric by its name. An epoch that a later attempt repeated counts once. */
function curvesOf(epochs: readonly Epoch[], axis: 'epoch' | 'step'): Map<string, Series['points']> {
  const curves = new Map<string, Map<number, number>>();
  for (const { [axis]: x, metrics } of epochs) {
    for (const { name, value } of metrics) {
      const curve = curves.get(name) ?? new Map<number, number>();
      curves.set(name, curve.set(x, value));
    }
  }
  return new Map([...curves].map(([name, curve]) => [name, [...curve].sort(([a], [b]) => a - b).map(([x, y]) => ({ x, y }))]));
}

/** A chart for each measure: the loss first, the learning rate last. */
export function chartsOf(epochs: readonly Epoch[]): Chart[] {
  const charts = new Map<string, Series[]>();
  for (const [name, points] of [...curvesOf(epochs, 'step')].sort(([a], [b]) => (a < b ? -1 : 1)))
    charts.set(measureOf(name), [...(charts.get(measureOf(name)) ?? []), { name, points }]);
  return [...charts].map(([title, series]) => ({ title, series })).sort(byPlace);
}

/** The marks of runs that are compared: how many there may be, and their names in the table. */
export const runMarks = ['A', 'B', 'C', 'D'] as const;

export interface Run {
  name: string;
  mark: string;
  epochs: readonly Epoch[];
}

/** A chart for each metric, with a curve of each run; of a run without the metric an empty one, so that the others keep their colours. */
export function comparedCharts(runs: readonly Run[], axis: 'epoch' | 'step'): Chart[] {
  const curves = runs.map(({ epochs }) => curvesOf(epochs, axis));
  const titles = new Set(curves.flatMap((ofRun) => [...ofRun.keys()]));
  return [...titles]
    .map((title) => ({ title, series: runs.map(({ name, mark }, i) => ({ name, mark, points: curves[i]?.get(title) ?? [] })) }))
    .sort(byPlace);
}

export interface Difference {
  name: string;
  values: string[];
}

/** What the specifications of runs say differently, by the path inside them. A run that says nothing of it has a dash. */
export function differencesOf(specs: readonly unknown[]): Difference[] {
  const flat = specs.map((spec) => new Map(leavesOf(spec, '')));
  const names = new Set(flat.flatMap((leaves) => [...leaves.keys()]));
  return [...names]
    .map((name) => ({ name, values: flat.map((leaves) => leaves.get(name) ?? '–') }))
    .filter(({ values }) => new Set(values).size > 1);
}

const leavesOf = (value: unknown, path: string): [string, string][] =>
  value !== null && typeof value === 'object' && !Array.isArray(value)
    ? Object.entries(value).flatMap(([name, inner]) => leavesOf(inner, path ? `${path}.${name}` : name))
    : [[path, typeof value === 'string' ? value : JSON.stringify(value)]];
