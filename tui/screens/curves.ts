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

/** A chart for each measure: the loss first, the learning rate last. An epoch that a later attempt repeated counts once. */
export function chartsOf(epochs: readonly Epoch[]): Chart[] {
  const curves = new Map<string, Map<number, number>>();
  for (const { step, metrics } of epochs) {
    for (const { name, value } of metrics) {
      const curve = curves.get(name) ?? new Map<number, number>();
      curves.set(name, curve.set(step, value));
    }
  }
  const charts = new Map<string, Series[]>();
  for (const [name, curve] of [...curves].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const points = [...curve].sort(([a], [b]) => a - b).map(([x, y]) => ({ x, y }));
    charts.set(measureOf(name), [...(charts.get(measureOf(name)) ?? []), { name, points }]);
  }
  return [...charts]
    .map(([title, series]) => ({ title, series }))
    .sort((a, b) => place(a.title) - place(b.title) || (a.title < b.title ? -1 : 1));
}
