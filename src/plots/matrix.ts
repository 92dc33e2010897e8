import { noData } from './frame.ts';
import { cut, element, escapeMarkup, type PlotText, plot, plotWidth, rounded, textAt, textWidth } from './svg.ts';

export interface MatrixPlot extends PlotText {
  classes: readonly string[];
  /** `counts[true][predicted]`. */
  counts: readonly (readonly number[])[];
}

/** More classes would have cells too small to read: those who have more choose which to show. */
export const matrixMax = 20;
const labelMax = 90;

/** A confusion matrix. A cell is as strong as its share of the images of its true class; what is right has another colour. */
export function matrixPlot({ classes, counts, ...text }: MatrixPlot): string {
  const shown = classes.slice(0, matrixMax);
  const n = shown.length;
  const labelWidth = Math.min(labelMax, Math.max(20, ...shown.map(textWidth)));
  const left = 30 + labelWidth;
  const top = 48;
  const cell = Math.min(40, (plotWidth - left - 8) / Math.max(1, n));
  const bottom = top + cell * n;
  // Names below the columns are upright where they fit, and slanted otherwise.
  const isSlanted = labelWidth > cell - 2;
  const height = bottom + (isSlanted ? labelWidth * 0.75 + 26 : 24);
  const cells = shown.flatMap((name, row) => {
    const line = counts[row] ?? [];
    const total = line.reduce((sum, count) => sum + (count > 0 ? count : 0), 0);
    return shown.flatMap((other, column) => {
      const count = line[column] ?? 0;
      const x = left + cell * column;
      const y = top + cell * row;
      const share = total > 0 && count > 0 ? count / total : 0;
      const says = `${name} taken for ${other}: ${count}`;
      return [
        element(
          'g',
          {},
          element('title', {}, escapeMarkup(row === column ? `${name}, right: ${count}` : says)),
          element('rect', { class: 'plot-cell', x, y, width: cell, height: cell }),
          element('rect', {
            class: row === column ? 'plot-right' : 'plot-wrong',
            x,
            y,
            width: cell,
            height: cell,
            'fill-opacity': opacity(share),
          }),
          ...(count > 0 && textWidth(String(count)) <= cell
            ? [textAt(x + cell / 2, y + cell / 2 + 4, String(count), { 'text-anchor': 'middle' })]
            : []),
        ),
      ];
    });
  });
  const labels = shown.flatMap((name, i) => {
    const text = cut(name, labelMax);
    const middle = left + cell * (i + 0.5);
    return [
      textAt(left - 6, top + cell * (i + 0.5) + 4, text, { 'text-anchor': 'end' }),
      isSlanted
        ? textAt(0, 0, text, { 'text-anchor': 'end', transform: `translate(${rounded(middle + 4)} ${rounded(bottom + 12)}) rotate(-45)` })
        : textAt(middle, bottom + 16, text, { 'text-anchor': 'middle' }),
    ];
  });
  return plot(text, n === 0 ? 120 : height, [
    textAt(left, top - 10, 'columns: the class that the model names'),
    textAt(0, 0, 'true class', { 'text-anchor': 'middle', transform: `translate(14 ${rounded((top + bottom) / 2)}) rotate(-90)` }),
    ...cells,
    ...labels,
    ...(n === 0 ? [noData(120)] : []),
  ]);
}

/** One of many must still be seen. */
const opacity = (share: number): number => (share === 0 ? 0 : 0.15 + 0.85 * share);
