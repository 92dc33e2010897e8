/** The report of a benchmark for people. */
import type { PercentileName } from '../benchmark/statistics.ts';
import { engines } from '../engine/engines.ts';
import { opaqueId } from '../naming.ts';
import { benchmarkPlots } from './benchmarkPlots.ts';
import { accuracyText, mebibytes, modelName, ms, number, percent, percentileTitles, plural, rowName, seconds } from './format.ts';
import { none, type ReportDocument, type Section } from './forms/document.ts';
import { provenanceSection, shaText, versionRow } from './jobs/parts.ts';
import { claimed, type ReportView, type RowView } from './report.ts';

export function benchmarkDocument(report: ReportView, sha256: string): ReportDocument {
  const { simple, machine } = report;
  return {
    kind: 'Benchmark',
    title: simple.headline,
    lead: [{ list: simple.points }],
    sections: [
      results(report),
      { heading: 'Plots', blocks: [{ plots: benchmarkPlots(report) }] },
      ...comparisons(report),
      choiceSteps(report),
      ...(report.rows.some(({ reasons }) => reasons.length > 0) ? [rowNotes(report)] : []),
      models(report),
      measurement(report),
      provenanceSection([['The benchmark', opaqueId('Job', report.jobId)], ...report.models.map(versionRow)]),
    ],
    footer: [
      `${machine.processor}, ${plural(machine.cores, 'core')}, ${mebibytes(machine.memoryBytes)}, ${machine.platform} ${machine.kernel} ${machine.arch}; ` +
        `Node ${machine.node}, Whetstone ${report.codeVersion}; ${report.measuredAt}.`,
      shaText(sha256),
    ],
  };
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

function results(report: ReportView): Section {
  const { rows, request, choice, confidence } = report;
  const names = claimed[request.profile];
  // A column that says the same in each row takes the room of the numbers.
  const [engine, ...others] = new Set(rows.map(({ engine }) => engines[engine].title));
  const hasOneEngine = others.length === 0;
  const isOfOneInstance = rows.every(({ instances }) => instances === 1);
  return {
    heading: 'Results',
    blocks: [
      {
        table: {
          caption:
            `Latencies with their ${100 * confidence} % intervals; throughput in images a second.` +
            (engine && hasOneEngine ? ` All rows ran on ${engine}.` : '') +
            (choice.n === null ? '' : ` Row ${choice.n} is the chosen one.`),
          head: [
            '#',
            'Model',
            ...(hasOneEngine ? [] : ['Engine']),
            'Batch',
            'Threads',
            ...(isOfOneInstance ? [] : ['Instances']),
            'Verdict',
            'Mean',
            ...names.map((name) => percentileTitles[name]),
            'Throughput',
            'Memory',
          ],
          rows: rows.map((row) => [
            `${row.n}`,
            modelName(report, row),
            ...(hasOneEngine ? [] : [engines[row.engine].title]),
            `${row.batchSize}`,
            `${row.intraOpThreads}`,
            ...(isOfOneInstance ? [] : [`${row.instances}`]),
            row.verdict,
            row.latency ? ms(row.latency.meanNs) : none,
            ...names.map((name) => percentileText(row, name)),
            row.itemsPerSecond === null ? none : number(row.itemsPerSecond),
            row.memory ? mebibytes(row.memory.increaseBytes) : none,
          ]),
          marked: rows.findIndex(({ n }) => n === choice.n),
        },
      },
    ],
  };
}

const choiceSteps = ({ request, choice }: ReportView): Section => ({
  heading: 'Choice',
  folded: true,
  blocks: [
    { text: `Target: ${request.target}. ${choice.says}` },
    { steps: choice.steps.map(({ rule, says, kept }) => `${rule}: ${says} Rows ${kept.join(', ') || none}.`) },
  ],
});

const rowNotes = ({ rows }: ReportView): Section => ({
  heading: 'Notes on the rows',
  folded: true,
  blocks: [
    {
      list: rows
        .filter(({ reasons }) => reasons.length > 0)
        .map(({ n, reasons }) => `Row ${n}: ${reasons.map(({ code, message }) => `${message} (${code})`).join(' ')}`),
    },
  ],
});

function comparisons(report: ReportView): Section[] {
  const { baseline, deltas, rows } = report;
  if (baseline === null || deltas.length === 0) return [];
  return [
    {
      heading: `Compared with row ${baseline}`,
      blocks: [
        {
          table: {
            caption: `Row ${baseline} is ${rowName(report, rows[baseline] as RowView)}. The times are compared within rounds, in which every row was measured once.`,
            head: ['#', 'Verdict', 'Time for an image', 'Throughput', 'Memory', 'Accuracy', 'Why'],
            rows: deltas.map(({ n, verdict, says, timeRatio, throughputRatio, memoryRatio, accuracyDifference }) => [
              `${n}`,
              verdict,
              ...[timeRatio, throughputRatio, memoryRatio].map((ratio) => (ratio === null ? none : `× ${number(ratio)}`)),
              accuracyDifference === null ? none : percent(accuracyDifference),
              says,
            ]),
          },
        },
      ],
    },
  ];
}

const models = ({ models }: ReportView): Section => ({
  heading: 'Models',
  folded: true,
  blocks: [
    {
      table: {
        caption: 'The model versions as they were when the benchmark ended.',
        head: ['Model', 'Precision', 'Size', 'Parameters', 'Open dimensions', 'Accuracy', 'SHA-256 of the file', 'Lineage hash'],
        rows: models.map(({ name, number: version, precision, sizeBytes, parameters, dims, accuracy, sha256, lineageHash }) => [
          `${name} version ${version}`,
          precision,
          mebibytes(sizeBytes),
          `${parameters}`,
          Object.entries(dims ?? {})
            .map(([dimension, size]) => `${dimension} ${size}`)
            .join(', ') || none,
          accuracy ? `${accuracyText(accuracy)} (${accuracy.dataset} version ${accuracy.datasetVersion}, ${accuracy.split})` : none,
          sha256,
          lineageHash,
        ]),
      },
    },
  ],
});

/** A share of time, in per cent. */
const shareText = (share: number | null | undefined): string => (share == null ? none : `${number(100 * share)} %`);

const range = (from: number, to: number): string => (from < to ? `${from} to ${to} s` : `${to} s`);

function measurement({ request, rows }: ReportView): Section {
  const { settings, profile, scenario } = request;
  return {
    heading: 'How it was measured',
    folded: true,
    blocks: [
      {
        text:
          `Profile ${profile}, scenario ${scenario}: a warm-up of ${range(settings.warmupSecondsMin, settings.warmupSecondsMax)}, then ` +
          `${range(settings.secondsMin, settings.secondsMax)} of measurement, where ${plural(settings.samplesWanted, 'sample')} are wanted. ` +
          'Percentiles by nearest rank, intervals are the wider of binomial ranks and of rounds drawn again; no sample was removed.',
      },
      {
        table: {
          caption: 'Of each measured row: cold start, samples, and what the machine did meanwhile.',
          head: [
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
          rows: rows
            .filter((row) => row.samples)
            .map(({ n, cold, warmup, samples, stability, noise }) => [
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
        },
      },
    ],
  };
}
