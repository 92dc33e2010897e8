import { line } from 'd3-shape';
import { legend, noData, seriesClass } from './frame.ts';
import { type Axis, drawable, scaleOf } from './scale.ts';
import { cut, element, escapeMarkup, type PlotText, plot, plotWidth, textAt, textWidth } from './svg.ts';

export interface ParallelPlot extends PlotText {
  axes: readonly Axis[];
  /** Names of the kinds of lines for the legend. Those of the second kind are drawn over the others. */
  kinds: readonly string[];
  /** A value for each axis; null leaves a gap. `name` is what a pointer over the line shows. */
  lines: readonly { kind: number; name: string; values: readonly (number | null)[] }[];
}

/** Below the legend. */
const room = 270;
const left = 14;
/** For the labels of the last axis. */
const right = plotWidth - 60;
const titleLine = 15;

/** Parallel coordinates: an upright axis for each quantity, and a line for each thing that has a value of all of them. */
export function parallelPlot({ axes, kinds, lines, ...text }: ParallelPlot): string {
  const { markup, bottom: top } = legend([...kinds], (n, x, y) =>
    element('path', { class: `plot-line ${seriesClass(n)}`, d: `M${x},${y}h18` }),
  );
  const height = top + room;
  const [first, last] = [top + 2 * titleLine + 14, height - 12];
  const gap = (right - left) / Math.max(1, axes.length - 1);
  const columns = axes.map((axis, n) => {
    const values = lines.map(({ values }) => drawable(values[n], axis));
    return { axis, x: left + n * gap, values, scale: scaleOf(values, axis, [last, first]) };
  });
  const titleAt = (n: number): number => top + 12 + (n % 2) * titleLine;
  const endOfTitle = (n: number): number => (n < 0 ? 0 : left + n * gap - 10 + textWidth(cut(axes[n]?.label ?? '', 2 * gap - 4)));
  const path = line<{ x: number; y: number | null }>(
    ({ x }) => x,
    ({ y }) => y as number,
  )
    .defined(({ y }) => y !== null)
    .digits(2);
  const drawn = lines
    .map((one, n) => ({ ...one, n }))
    .sort((a, b) => Number(a.kind === 1) - Number(b.kind === 1))
    .map(({ kind, name, n }) => {
      const places = columns.map(({ x, values, scale }) => {
        const value = values[n] ?? null;
        return { x, y: value === null ? null : scale(value) };
      });
      const style = `plot-line ${seriesClass(kind)}${kind === 1 ? '' : ' plot-thin'}`;
      return element('g', {}, element('title', {}, escapeMarkup(name)), element('path', { class: style, d: path(places) ?? '' }));
    });
  return plot(text, height, [
    ...markup,
    ...drawn,
    ...columns.flatMap(({ axis, x, scale }, n) => [
      // Neighbours have their titles in different lines, so that each has the room of two.
      n > 0 && n === axes.length - 1
        ? textAt(plotWidth - 4, titleAt(n), cut(axis.label, plotWidth - 14 - endOfTitle(n - 2)), { 'text-anchor': 'end' })
        : textAt(x - 10, titleAt(n), cut(axis.label, 2 * gap - 4)),
      element('line', { class: 'plot-axis', x1: x, x2: x, y1: first, y2: last }),
      ...scale.ticks.flatMap(({ at, label }) => [
        element('line', { class: 'plot-axis', x1: x, x2: x + 4, y1: at, y2: at }),
        textAt(x + 6, at + 4, cut(label, gap - 8), { class: 'plot-over' }),
      ]),
    ]),
    ...(lines.length === 0 ? [noData(height)] : []),
  ]);
}
