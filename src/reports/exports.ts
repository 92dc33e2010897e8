/** A report as a file: pure functions of its content. */

import type { PercentileName } from '../benchmark/statistics.ts';
import { engines } from '../engine/engines.ts';
import { opaqueId } from '../naming.ts';
import { accuracyText, mebibytes, modelName, ms, number, percent, plural, rowName, seconds } from './format.ts';
import { claimed, type ReportView, type RowView } from './report.ts';
import { viewOf } from './view.ts';

export const reportFormats = ['JSON', 'CSV', 'MARKDOWN'] as const;
export type ReportFormat = (typeof reportFormats)[number];

/** `content` is the report's canonical JSON, `sha256` its hash. */
interface Stored {
  content: string;
  sha256: string;
}

const formats: Record<ReportFormat, { ending: string; mediaType: string; write(stored: Stored): string }> = {
  JSON: { ending: 'json', mediaType: 'application/json', write: ({ content }) => content },
  CSV: { ending: 'csv', mediaType: 'text/csv', write: ({ content }) => toCsv(viewOf(JSON.parse(content))) },
  MARKDOWN: { ending: 'md', mediaType: 'text/markdown', write: ({ content, sha256 }) => toMarkdown(viewOf(JSON.parse(content)), sha256) },
};

export interface ExportedReport {
  fileName: string;
  mediaType: string;
  content: string;
}

export function exportReport(stored: Stored, format: ReportFormat): ExportedReport {
  const { ending, mediaType, write } = formats[format];
  return { fileName: `report-${stored.sha256.slice(0, 12)}.${ending}`, mediaType, content: write(stored) };
}

// ------------------------------------------------------------------------------------------------------------------ CSV

type Value = string | number | null | undefined;

const percentileColumns = (name: PercentileName): [string, (report: ReportView, row: RowView) => Value][] => [
  [`${name}Kind`, (_report, { latency }) => latency?.[name]?.kind],
  [`${name}Ns`, (_report, { latency }) => latency?.[name]?.ns],
  [`${name}LowNs`, (_report, { latency }) => latency?.[name]?.lowNs],
  [`${name}HighNs`, (_report, { latency }) => latency?.[name]?.highNs],
];

const csvColumns: [string, (report: ReportView, row: RowView) => Value][] = [
  ['n', (_report, { n }) => n],
  ['model', ({ models }, { model }) => models[model]?.name],
  ['modelVersion', ({ models }, { model }) => models[model]?.number],
  ['precision', (_report, { precision }) => precision],
  ['engine', (_report, { engine }) => engine],
  ['engineVersion', (_report, { engineVersion }) => engineVersion],
  ['batchSize', (_report, { batchSize }) => batchSize],
  ['intraOpThreads', (_report, { intraOpThreads }) => intraOpThreads],
  ['verdict', (_report, { verdict }) => verdict],
  ['reasons', (_report, { reasons }) => reasons.map(({ code }) => code).join(' ')],
  ['count', (_report, { samples }) => samples?.count],
  ['elapsedNs', (_report, { elapsedNs }) => elapsedNs],
  ['itemsPerSecond', (_report, { itemsPerSecond }) => itemsPerSecond],
  ['meanNs', (_report, { latency }) => latency?.meanNs],
  ['meanLowNs', (_report, { latency }) => latency?.meanLowNs],
  ['meanHighNs', (_report, { latency }) => latency?.meanHighNs],
  ['minNs', (_report, { latency }) => latency?.minNs],
  ['maxNs', (_report, { latency }) => latency?.maxNs],
  ...claimed.FULL.flatMap(percentileColumns),
  ['loadNs', (_report, { cold }) => cold?.loadNs],
  ['firstInferenceNs', (_report, { cold }) => cold?.firstInferenceNs],
  ['memoryBaselineBytes', (_report, { memory }) => memory?.baselineBytes],
  ['memoryPeakBytes', (_report, { memory }) => memory?.peakBytes],
  ['accuracyMetric', ({ models }, { model }) => models[model]?.accuracy?.metric],
  ['accuracy', ({ models }, { model }) => models[model]?.accuracy?.value],
  ['samplesSha256', (_report, { samples }) => samples?.sha256],
];

/** RFC 4180: one line for each row. A text that a spreadsheet would compute gets an apostrophe, as OWASP's "CSV Injection" advises. */
function toCsv(report: ReportView): string {
  const cell = (value: Value) => {
    const text = typeof value === 'string' && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value ?? '');
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [csvColumns.map(([name]) => name), ...report.rows.map((row) => csvColumns.map(([, read]) => cell(read(report, row))))];
  return `${lines.map((line) => line.join(',')).join('\r\n')}\r\n`;
}

// ------------------------------------------------------------------------------------------------------------- Markdown

const none = '–';

/** Names come from whoever made a model or a dataset: none is markup. */
const plain = (text: string): string => text.replace(/[\\`*_<>[\]|#~&]/g, '\\$&').replace(/\s/g, ' ');

function table(head: string[], rows: string[][]): string {
  const line = (cells: string[]) => `| ${cells.map(plain).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

/** `12.3 ms (12.1 to 12.9)`, `≤ 15.0 ms`, or why there is none. */
function percentileText(row: RowView, name: PercentileName): string {
  const found = row.latency?.[name];
  if (!found) return none;
  const { kind, ns, lowNs, highNs } = found;
  if (kind === 'INSUFFICIENT' || ns === null) return 'insufficient samples';
  if (kind === 'AT_MOST') return `≤ ${ms(ns)}`;
  const bound = (value: number | null, open: string) => (value === null ? open : number(value / 1e6));
  return `${ms(ns)} (${bound(lowNs, '?')} to ${bound(highNs, '?')})`;
}

const percentileTitles: Record<PercentileName, string> = { p50: 'P50', p95: 'P95', p99: 'P99', p999: 'P99.9' };

/** A share of time, in per cent. */
const shareText = (share: number | null | undefined): string => (share == null ? none : `${number(100 * share)} %`);

const range = (from: number, to: number): string => (from < to ? `${from} to ${to} s` : `${to} s`);

function toMarkdown(report: ReportView, sha256: string): string {
  const { models, rows, machine, request, choice, simple, deltas, baseline } = report;
  const names = claimed[request.profile];
  const { settings } = request;
  const measured = rows.filter((row) => row.samples);
  const sections = [
    `# ${plain(simple.headline)}`,
    simple.points.map((point) => `- ${plain(point)}`).join('\n'),
    '## Results',
    `Latencies with their ${100 * report.confidence} % intervals; throughput in images a second.`,
    table(
      [
        '#',
        'Model',
        'Engine',
        'Batch',
        'Threads',
        'Verdict',
        'Mean',
        ...names.map((name) => percentileTitles[name]),
        'Throughput',
        'Memory',
      ],
      rows.map((row) => [
        `${row.n}`,
        modelName(report, row),
        engines[row.engine].title,
        `${row.batchSize}`,
        `${row.intraOpThreads}`,
        row.verdict,
        row.latency ? ms(row.latency.meanNs) : none,
        ...names.map((name) => percentileText(row, name)),
        row.itemsPerSecond === null ? none : number(row.itemsPerSecond),
        row.memory ? mebibytes(row.memory.increaseBytes) : none,
      ]),
    ),
    rows
      .filter(({ reasons }) => reasons.length > 0)
      .map(({ n, reasons }) => `- Row ${n}: ${plain(reasons.map(({ code, message }) => `${message} (${code})`).join(' '))}`)
      .join('\n'),
    '## Choice',
    `Target: ${request.target}. ${plain(choice.says)}`,
    choice.steps.map(({ rule, says, kept }, i) => `${i + 1}. ${rule}: ${plain(says)} Rows ${kept.join(', ') || none}.`).join('\n'),
    ...(baseline === null || deltas.length === 0
      ? []
      : [
          `## Compared with row ${baseline}`,
          `Row ${baseline} is ${plain(rowName(report, rows[baseline] as RowView))}. The times are compared within rounds, in which every row was measured once.`,
          table(
            ['#', 'Verdict', 'Time for an image', 'Throughput', 'Memory', 'Accuracy', 'Why'],
            deltas.map(({ n, verdict, says, timeRatio, throughputRatio, memoryRatio, accuracyDifference }) => [
              `${n}`,
              verdict,
              ...[timeRatio, throughputRatio, memoryRatio].map((ratio) => (ratio === null ? none : `× ${number(ratio)}`)),
              accuracyDifference === null ? none : percent(accuracyDifference),
              says,
            ]),
          ),
        ]),
    '## Models',
    table(
      ['Model', 'Precision', 'Size', 'Parameters', 'Open dimensions', 'Accuracy', 'SHA-256 of the file', 'Lineage hash'],
      models.map(({ name, number: version, precision, sizeBytes, parameters, dims, accuracy, sha256: file, lineageHash }) => [
        `${name} version ${version}`,
        precision,
        mebibytes(sizeBytes),
        `${parameters}`,
        Object.entries(dims ?? {})
          .map(([dimension, size]) => `${dimension} ${size}`)
          .join(', ') || none,
        accuracy ? `${accuracyText(accuracy)} (${accuracy.dataset} version ${accuracy.datasetVersion}, ${accuracy.split})` : none,
        file,
        lineageHash,
      ]),
    ),
    '## How it was measured',
    `${machine.processor}, ${plural(machine.cores, 'core')}, ${mebibytes(machine.memoryBytes)}, ${machine.platform} ${machine.kernel} ${machine.arch}; ` +
      `Node ${machine.node}, Whetstone ${report.codeVersion}; ${report.measuredAt}.`,
    `Profile ${request.profile}, load ${request.load}: a warm-up of ${range(settings.warmupSecondsMin, settings.warmupSecondsMax)}, then ` +
      `${range(settings.secondsMin, settings.secondsMax)} of measurement, where ${plural(settings.samplesWanted, 'sample')} are wanted. Percentiles by nearest rank, intervals are ` +
      'the wider of binomial ranks and of rounds drawn again; no sample was removed.',
    table(
      [
        '#',
        'Load',
        'First',
        'Warm-up runs',
        'Samples',
        'Spread',
        'P95 spread',
        'Drift',
        'Steal',
        'Throttled',
        'Contention',
        'SHA-256 of the samples',
      ],
      measured.map(({ n, cold, warmup, samples, stability, noise }) => [
        `${n}`,
        cold ? seconds(cold.loadNs) : none,
        cold ? ms(cold.firstInferenceNs) : none,
        `${warmup?.runs ?? none}`,
        `${samples?.count ?? none}`,
        shareText(stability?.throughputSpread),
        shareText(stability?.p95Spread),
        shareText(stability?.drift),
        shareText(noise?.steal),
        shareText(noise?.throttled),
        shareText(noise?.contention),
        samples?.sha256 ?? none,
      ]),
    ),
    '## Provenance',
    `Made from the samples of a benchmark of ${plain(models.map(({ name, number: version }) => `${name} version ${version}`).join(', '))}. ` +
      '`node(id)` of the API finds what these ids name.',
    table(
      ['What', 'Id'],
      [
        ['The benchmark', opaqueId('Job', report.jobId)],
        ...models.map(({ name, number: version, versionId }) => [`${name} version ${version}`, opaqueId('ModelVersion', versionId)]),
      ],
    ),
    `SHA-256 of this report as JSON: ${sha256}`,
  ];
  return `${sections.filter((section) => section !== '').join('\n\n')}\n`;
}
