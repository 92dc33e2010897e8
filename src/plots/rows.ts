import { legend, marker, noData, seriesClass, xAxisOf } from './frame.ts';
import { type Axis, drawable, scaleOf } from './scale.ts';
import { cut, element, escapeMarkup, type PlotText, plot, plotWidth, rounded, textAt, textWidth } from './svg.ts';

export interface Estimate {
  value: number | null;
  /** Ends of its interval; null where it has none. */
  low: number | null;
  high: number | null;
}

export interface RowPlot extends PlotText {
  x: Axis;
  /** Names of the values that each row has. */
  names: readonly string[];
  rows: readonly { label: string; values: readonly Estimate[] }[];
  /** Bars begin at 0; dots do not need to. */
  mark: 'BAR' | 'DOT';
}

/** Rows beyond these are left out, and a line says so. */
const rowsMax = 40;
const labelMax = 190;

/** A line for each row with its values and their intervals: percentiles of configurations, or the memory that they take. */
export function rowPlot({ x: asked, names, rows, mark, ...text }: RowPlot): string {
  const xAxis = mark === 'BAR' ? { ...asked, log: false, include: [0] } : asked;
  const shown = rows.slice(0, rowsMax);
  const drawnOf = ({ value, low, high }: Estimate): Estimate => ({
    value: drawable(value, xAxis),
    low: drawable(low, xAxis),
    high: drawable(high, xAxis),
  });
  const drawn = shown.map(({ values }) => values.map(drawnOf));
  const numbers = drawn.flat().flatMap(({ value, low, high }) => (value === null ? [] : [value, low, high]));
  const { markup, bottom: top } = legend([...names], (n, x, y) => marker(n, x + 9, y, 45));
  const rowHeight = Math.max(18, 7 * names.length + 8);
  const bottom = top + 6 + rowHeight * Math.max(2, shown.length) + (rows.length > rowsMax ? 16 : 0);
  const left = 10 + Math.min(labelMax, Math.max(20, ...shown.map(({ label }) => textWidth(label))));
  const right = plotWidth - 14;
  const x = scaleOf(numbers, xAxis, [left, right]);
  const height = bottom + 40;
  const marks = drawn.flatMap((values, row) => {
    const middle = top + 6 + rowHeight * (row + 0.5);
    const { label } = shown[row] as (typeof shown)[number];
    return [
      element('line', { class: 'plot-grid', x1: left, x2: right, y1: middle, y2: middle }),
      element(
        'g',
        {},
        element('title', {}, escapeMarkup(label)),
        textAt(left - 6, middle + 4, cut(label, labelMax), { 'text-anchor': 'end' }),
      ),
      ...values.flatMap(({ value, low, high }, n) => {
        if (value === null) return [];
        const y = middle + 7 * (n - (values.length - 1) / 2);
        if (mark === 'BAR') {
          const half = rowHeight / 2 - 3;
          return [
            element('path', {
              class: `plot-bar ${seriesClass(n)}`,
              d: `M${rounded(x(0))},${rounded(y - half)}H${rounded(x(value))}v${2 * half}H${rounded(x(0))}Z`,
            }),
          ];
        }
        return [
          ...(low !== null && high !== null
            ? [element('path', { class: `plot-interval ${seriesClass(n)}`, d: `M${rounded(x(low))},${rounded(y)}H${rounded(x(high))}` })]
            : []),
          marker(n, x(value), y),
        ];
      }),
    ];
  });
  return plot(text, height, [
    ...markup,
    ...x.ticks.map(({ at }) => element('line', { class: 'plot-grid', x1: at, x2: at, y1: top + 4, y2: bottom })),
    ...marks,
    ...(rows.length > rowsMax ? [textAt(left, bottom - 6, `${rows.length - rowsMax} more are in the table`)] : []),
    xAxisOf(x, xAxis, { left, right, bottom }),
    ...(numbers.length === 0 ? [noData(height)] : []),
  ]);
}
