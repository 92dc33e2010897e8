/** The plots of trainings and evaluations. */
import type { Curve } from '../../jobs/curves.ts';
import { seriesMax } from '../../plots/frame.ts';
import { linePlot, type Series } from '../../plots/lines.ts';
import { matrixPlot } from '../../plots/matrix.ts';
import type { Confusion, EvaluationDetail } from './detail.ts';

/** Curves that share a plot, by the last part of their names: the others are in one of their own. */
const groups: { measures: RegExp; title: string; label: string; percent?: boolean }[] = [
  { measures: /^loss$/, title: 'Loss', label: 'loss' },
  { measures: /^(top1|top5|macroTop1)$/, title: 'Accuracy', label: 'images (%)', percent: true },
  { measures: /^map/, title: 'Mean average precision', label: 'mAP' },
  { measures: /^learningRate$/, title: 'Learning rate', label: 'learning rate' },
];

const measureOf = (name: string): string => name.split('.').at(-1) as string;

const groupOf = (name: string) =>
  groups.find(({ measures }) => measures.test(measureOf(name))) ?? { title: measureOf(name), label: measureOf(name), percent: false };

const placeOf = (name: string): number => groups.findIndex(({ measures }) => measures.test(measureOf(name))) + 1 || groups.length;

/** What a curve is called where people read it. */
export const curveName = (name: string): string =>
  name
    .replace(/^val\./, 'validation ')
    .replace(/^train\./, 'training ')
    .replace(/\w+$/, (measure) => measureNames[measure] ?? measure);

const measureNames: Record<string, string> = {
  top1: 'top-1',
  top5: 'top-5',
  macroTop1: 'mean recall',
  map50: 'mAP50',
  map5095: 'mAP50-95',
  learningRate: 'learning rate',
};

/** Epochs where every point knows its own, as all of a training of today do; otherwise steps. */
const axisOf = (curves: readonly Curve[]): 'epoch' | 'step' =>
  curves.every(({ points }) => points.every(({ epoch }) => epoch !== null)) ? 'epoch' : 'step';

const seriesOf = (curve: Curve | undefined, name: string, axis: 'epoch' | 'step', percent: boolean | undefined): Series => ({
  name,
  points: (curve?.points ?? []).map((point) => ({ x: point[axis], y: point.value * (percent ? 100 : 1) })),
});

/** A curve that falls to a small part of where it began shows nothing of its end on a linear axis. */
function spansDecades(series: readonly Series[]): boolean {
  const values = series.flatMap(({ points }) => points.flatMap(({ y }) => y ?? []));
  return values.length > 0 && Math.min(...values) > 0 && Math.max(...values) > 30 * Math.min(...values);
}

/** A plot for each kind of curve of a training. */
export function curvePlots(curves: readonly Curve[]): string[] {
  const axis = axisOf(curves);
  const byTitle = Map.groupBy(
    curves.toSorted((a, b) => placeOf(a.name) - placeOf(b.name)),
    ({ name }) => groupOf(name).title,
  );
  return [...byTitle].map(([title, together]) => {
    const { label, percent } = groupOf((together[0] as Curve).name);
    const series = together.slice(0, seriesMax).map((curve) => seriesOf(curve, curveName(curve.name), axis, percent));
    return linePlot({
      title,
      description: `${together.map(({ name }) => curveName(name)).join(', ')} after each ${axis}.`,
      x: { label: axis },
      y: { label, log: title === 'Loss' && spansDecades(series) },
      series,
    });
  });
}

export interface NamedCurves {
  name: string;
  curves: readonly Curve[];
}

/** A plot for each curve that some run has, with a line for each run: of a run without it none, so that the others keep their colours. */
export function comparedPlots(runs: readonly NamedCurves[]): string[] {
  const axis = axisOf(runs.flatMap(({ curves }) => curves));
  const names = [...new Set(runs.flatMap(({ curves }) => curves.map(({ name }) => name)))];
  return names
    .sort((a, b) => placeOf(a) - placeOf(b))
    .map((name) => {
      const { label, percent, title } = groupOf(name);
      const series = runs.map((run) =>
        seriesOf(
          run.curves.find((curve) => curve.name === name),
          run.name,
          axis,
          percent,
        ),
      );
      return linePlot({
        title: curveName(name),
        description: `${curveName(name)} of each run after each ${axis}.`,
        x: { label: axis },
        y: { label, log: title === 'Loss' && spansDecades(series) },
        series,
      });
    });
}

export function detailPlots(detail: EvaluationDetail): string[] {
  if (detail.task === 'CLASSIFICATION') {
    return [confusionPlot(detail.confusion, 'How many images of each class the model takes for which.')];
  }
  const matrix = detail.confusion
    ? [
        confusionPlot(
          detail.confusion,
          'How many objects of each class are found as which, at IoU 0.5 and the best score threshold. The row of the background counts boxes where nothing is, its column objects that were missed.',
        ),
      ]
    : [];
  const { mean, worst } = detail.precision;
  if (!mean) return matrix;
  const drawn = worst.length > 1 ? [{ name: 'mean of all classes', values: mean }, ...worst] : worst;
  return [
    linePlot({
      title: 'Precision and recall at IoU 0.5',
      description: 'The precision at each recall: of all classes, and of those that are found worst. The table of classes has their areas.',
      x: { label: 'recall', include: [0, 1] },
      y: { label: 'precision', include: [0, 1] },
      series: drawn.map(({ name, values }) => ({ name, points: values.map((y, i) => ({ x: i / (values.length - 1), y })) })),
    }),
    ...matrix,
  ];
}

function confusionPlot({ classes, counts, ofClasses }: Confusion, what: string): string {
  const part = classes.length < ofClasses ? ` Of ${ofClasses} classes these are confused most.` : '';
  return matrixPlot({
    title: 'Confusion matrix',
    description: `${what}${part} The table of pairs has the largest numbers.`,
    classes,
    counts,
  });
}
