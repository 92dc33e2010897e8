/** A report as one HTML file: it asks no host for anything, runs no script, follows the light or dark of the reader, and prints on A4. */
import { plotStyle } from '../../plots/style.ts';
import { escapeMarkup } from '../../plots/svg.ts';
import { type DocumentBlock, none, type Picture, type ReportDocument, type Section, type Table } from './document.ts';

/** Of the file, wherever it lies; whoever serves it adds to this. */
export const htmlPolicy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

const style = `
:root { color-scheme: light dark; --back: #fff; --text: #1b1f24; --soft: #59636e; --line: #d0d7de; --mark: #e7f1fa;
  --missed: #c44e00; --false: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem; background: var(--back); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .75rem; }
h2 { font-size: 1.15rem; line-height: 1.3; margin: 1.75rem 0 .5rem; }
p, ul, ol { margin: .5rem 0; } ul, ol { padding-left: 1.4rem; }
.kind, footer { color: var(--soft); font-size: .875rem; } .kind { margin: 0; }
footer { margin-top: 2rem; border-top: 1px solid var(--line); padding-top: .5rem; }
.scroll { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .875rem; overflow-wrap: normal; }
caption { text-align: left; color: var(--soft); padding-bottom: .25rem; min-width: min(36rem, 90vw); }
th, td { text-align: left; vertical-align: top; padding: .25rem 1rem .25rem 0; border-bottom: 1px solid var(--line); font-weight: 400; }
thead th { font-weight: 600; vertical-align: bottom; }
.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.long { font: .75rem/1.4 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; min-width: 9rem; }
.marked > * { background: var(--mark); } .marked > th { font-weight: 700; }
td:not(.n), tbody th:not(.n) { min-width: 6rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr)); gap: 1.25rem; margin: .75rem 0; }
ul.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 1rem; padding: 0; list-style: none; }
.pictures svg { display: block; width: 9rem; height: 9rem; background: var(--mark); }
.pictures rect { fill: none; stroke-width: 2; vector-effect: non-scaling-stroke; stroke: var(--missed); } .pictures .false { stroke: var(--false); stroke-dasharray: 4 3; }
.pictures figure { margin: 0; font-size: .8rem; line-height: 1.35; } .pictures .name { color: var(--soft); font-size: .7rem; }
summary { cursor: pointer; margin-top: 1.5rem; } summary h2 { display: inline; }
@media screen and (prefers-color-scheme: dark) {
  :root { --back: #14181d; --text: #e6e9ec; --soft: #a3adb8; --line: #3a424b; --mark: #1f3347; --missed: #f0803c; --false: #56b4e9; }
}
@page { size: A4; margin: 11mm; }
@media print {
  :root { color-scheme: light; }
  body { max-width: none; padding: 0; font-size: 8.5pt; line-height: 1.35; }
  h1 { font-size: 14pt; margin-bottom: 2mm; } h2 { font-size: 10.5pt; margin: 3mm 0 1mm; break-after: avoid; }
  .kind, footer, table, caption { font-size: 7.5pt; } footer { margin-top: 3mm; }
  .long { font-size: 6pt; min-width: 0; }
  th, td { padding: .4mm 2mm .4mm 0; } td:not(.n), tbody th:not(.n) { min-width: 14mm; }
  .scroll { overflow: visible; } .tall { columns: 2; } tr, .plot { break-inside: avoid; }
  .plots { grid-template-columns: 1fr 1fr; gap: 3mm; }
  .marked > * { print-color-adjust: exact; } .plot * { print-color-adjust: exact; }
  details:not([open]), .screen { display: none; }
}
`;

/** Numbers are compared by their places, and hashes broken anywhere. */
function classOf(cells: string[]): string {
  if (cells.some((cell) => /^[\w+/=-]{32,}$/.test(cell))) return ' class="long"';
  const numbers = cells.filter((cell) => /^(≤ |× |-)?\d.{0,30}$/.test(cell));
  const isNumber = numbers.length > 0 && 2 * numbers.length >= cells.filter((cell) => cell !== none).length;
  return isNumber ? ' class="n"' : '';
}

function table({ caption, head, rows, marked }: Table): string {
  // Names may be digits too: the first column has numbers only where its title says so.
  const classes = head.map((title, column) => (column === 0 && title !== '#' ? '' : classOf(rows.map((row) => row[column] ?? ''))));
  const cells = (row: string[]) =>
    row.map((cell, column) =>
      column === 0 ? `<th scope="row"${classes[0]}>${escapeMarkup(cell)}</th>` : `<td${classes[column]}>${escapeMarkup(cell)}</td>`,
    );
  const isTall = rows.length >= 20 && head.length <= 4;
  return [
    `<div class="scroll${isTall ? ' tall' : ''}" role="region" tabindex="0" aria-label="${escapeMarkup(caption)}"><table>`,
    `<caption>${escapeMarkup(caption)}</caption>`,
    `<thead><tr>${head.map((title, column) => `<th scope="col"${classes[column]}>${escapeMarkup(title)}</th>`).join('')}</tr></thead>`,
    `<tbody>${rows.map((row, n) => `<tr${n === marked ? ' class="marked"' : ''}>${cells(row).join('')}</tr>`).join('\n')}</tbody>`,
    '</table></div>',
  ].join('\n');
}

/** The image fills a square; the boxes are in its own pixels. */
function picture({ address, width, height, name, caption, boxes }: Picture): string {
  const says = `${name}: ${caption}`;
  const shown = [
    ...(address === null ? [] : [`<image href="${escapeMarkup(address)}" width="${width}" height="${height}"/>`]),
    ...boxes.map(
      (box) => `<rect class="${box.kind.toLowerCase()}" x="${box.x}" y="${box.y}" width="${box.width}" height="${box.height}"/>`,
    ),
  ];
  return (
    `<li><figure><svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeMarkup(says)}">${shown.join('')}</svg>` +
    `<figcaption>${escapeMarkup(caption)}<br><span class="name">${escapeMarkup(name)}</span></figcaption></figure></li>`
  );
}

function blockMarkup(block: DocumentBlock): string {
  if (Object.values(block).some((items) => Array.isArray(items) && items.length === 0)) return '';
  if ('text' in block) return `<p>${escapeMarkup(block.text)}</p>`;
  if ('list' in block) return `<ul>${block.list.map((item) => `<li>${escapeMarkup(item)}</li>`).join('\n')}</ul>`;
  if ('steps' in block) return `<ol>${block.steps.map((step) => `<li>${escapeMarkup(step)}</li>`).join('\n')}</ol>`;
  if ('pictures' in block) return `<ul class="pictures">${block.pictures.map(picture).join('\n')}</ul>`;
  return 'table' in block ? table(block.table) : `<div class="plots">${block.plots.join('\n')}</div>`;
}

function sectionMarkup({ heading, blocks, folded, screenOnly }: Section): string {
  const title = `<h2>${escapeMarkup(heading)}</h2>`;
  const body = blocks.map(blockMarkup).join('\n');
  return folded
    ? `<details><summary>${title}</summary>\n${body}\n</details>`
    : `<section${screenOnly ? ' class="screen"' : ''}>${title}\n${body}\n</section>`;
}

export function toHtml({ kind, title, lead, sections, footer }: ReportDocument): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${escapeMarkup(htmlPolicy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="Whetstone">
<link rel="icon" href="data:,">
<title>${escapeMarkup(title)}</title>
<style>${style}${plotStyle}</style>
</head>
<body>
<main>
<p class="kind">${escapeMarkup(kind)}</p>
<h1>${escapeMarkup(title)}</h1>
${[...lead.map(blockMarkup), ...sections.map(sectionMarkup)].join('\n')}
</main>
<footer>${footer.map((line) => `<p>${escapeMarkup(line)}</p>`).join('\n')}</footer>
</body>
</html>
`;
}
