/** The plots of a benchmark's report. */
import { seriesMax } from '../plots/frame.ts';
import { linePlot } from '../plots/lines.ts';
import { rowPlot } from '../plots/rows.ts';
import { paretoFront, type ScatterPlot, scatterPlot } from '../plots/scatter.ts';
import { distinctionOf, percentileTitles, rowName } from './format.ts';
import { claimed, distributionPerMille, onSameImages, type ReportView, type RowView } from './report.ts';

const ms = (ns: number | null | undefined): number | null => (ns == null ? null : ns / 1e6);

export function benchmarkPlots(report: ReportView): string[] {
  const measured = report.rows.filter(({ samples }) => samples);
  if (measured.length === 0) return [];
  const followed = followedRows(report, measured);
  return [
    percentiles(report, measured),
    throughput(report, measured),
    ...accuracy(report, measured),
    ...course(report, followed),
    ...distribution(report, followed),
    ...memory(report, measured),
  ];
}

/** The number of a row, and in what it differs from others. */
const labelIn = (report: ReportView, row: RowView): string => `#${row.n} ${distinctionOf(report, row)}`.trimEnd();

/** As many rows as a plot can tell apart: the chosen one, the baseline, then the quickest. In the order of the report. */
function followedRows({ choice, baseline }: ReportView, rows: RowView[]): RowView[] {
  const place = ({ n, latency }: RowView) => (n === choice.n ? -2 : n === baseline ? -1 : (latency?.meanNs ?? Number.POSITIVE_INFINITY));
  return rows
    .toSorted((a, b) => place(a) - place(b))
    .slice(0, seriesMax)
    .sort((a, b) => a.n - b.n);
}

function percentiles(report: ReportView, rows: RowView[]): string {
  const names = claimed[report.request.profile].filter((name) => rows.some(({ latency }) => latency?.[name]?.ns));
  return rowPlot({
    title: `Latency with ${100 * report.confidence} % intervals`,
    description: 'The percentiles of each row with their intervals. The table of results has the numbers.',
    x: { label: 'latency of a batch (ms)', log: true },
    names: names.map((name) => percentileTitles[name]),
    rows: rows.map((row) => ({
      label: labelIn(report, row),
      values: names.map((name) => {
        const found = row.latency?.[name];
        return { value: ms(found?.ns), low: ms(found?.lowNs), high: ms(found?.highNs) };
      }),
    })),
    mark: 'DOT',
  });
}

/** Points against latency, of which less is better; of `y` more is. */
const withFront = ({ choice }: ReportView, points: ScatterPlot['points']): Pick<ScatterPlot, 'kinds' | 'points' | 'line'> => ({
  kinds: choice.n === null ? ['measured'] : ['measured', 'chosen'],
  points,
  line: { name: 'not beaten in both', points: paretoFront(points, { x: -1, y: 1 }) },
});
const pointOf = (report: ReportView, row: RowView) => ({
  x: ms(row.latency?.p50?.ns),
  label: `#${row.n}`,
  name: rowName(report, row),
  kind: row.n === report.choice.n ? 1 : 0,
});

const throughput = (report: ReportView, rows: RowView[]): string =>
  scatterPlot({
    title: 'Throughput against latency',
    description: 'Further up is more work done, further left is a sooner answer. The table of results has the numbers.',
    x: { label: 'median latency of a batch (ms)', log: true },
    y: { label: 'images a second' },
    ...withFront(
      report,
      rows.map((row) => ({ ...pointOf(report, row), y: row.itemsPerSecond })),
    ),
  });

/** Of versions that were evaluated on the same images. */
function accuracy(report: ReportView, rows: RowView[]): string[] {
  const { models } = report;
  const known = models.flatMap(({ accuracy }) => accuracy ?? []);
  const [first] = known;
  if (!first || known.length < 2 || !known.every((one) => onSameImages(one, first))) return [];
  return [
    scatterPlot({
      title: 'Accuracy against latency',
      description: `Further up is more often right, further left is a sooner answer. The accuracy is that on ${first.dataset} version ${first.datasetVersion}.`,
      x: { label: 'median latency of a batch (ms)', log: true },
      y: { label: first.metric === 'TOP1' ? 'top-1 (%)' : 'mAP50-95' },
      ...withFront(
        report,
        rows.map((row) => {
          const found = models[row.model]?.accuracy;
          return { ...pointOf(report, row), y: found ? found.value * (first.metric === 'TOP1' ? 100 : 1) : null };
        }),
      ),
    }),
  ];
}

const someOf = (followed: RowView[], all: RowView[]): string => (followed.length < all.length ? ` ${followed.length} rows are drawn.` : '');

function course(report: ReportView, rows: RowView[]): string[] {
  if (!rows.some(({ course }) => course && course.length > 1)) return [];
  return [
    linePlot({
      title: 'Course over the rounds',
      description: `The median latency of each row in each round: a jump in all rows is the machine’s.${someOf(rows, report.rows)}`,
      x: { label: 'round' },
      y: { label: 'median latency (ms)', log: true },
      series: rows.map((row) => ({
        name: labelIn(report, row),
        points: (row.course ?? []).map(({ round, p50Ns }) => ({ x: round + 1, y: p50Ns / 1e6 })),
      })),
    }),
  ];
}

function distribution(report: ReportView, rows: RowView[]): string[] {
  if (!rows.some(({ latency }) => latency?.distributionNs)) return [];
  return [
    linePlot({
      title: 'Distribution of the latencies',
      description: `The share of the inferences that took at most so long.${someOf(rows, report.rows)}`,
      x: { label: 'latency of a batch (ms)', log: true },
      y: { label: 'inferences (%)', include: [0, 100] },
      marks: false,
      series: rows.map((row) => ({
        name: labelIn(report, row),
        points: (row.latency?.distributionNs ?? []).map((ns, i) => ({ x: ns / 1e6, y: (distributionPerMille[i] ?? 0) / 10 })),
      })),
    }),
  ];
}

function memory(report: ReportView, rows: RowView[]): string[] {
  if (!rows.some((row) => row.memory)) return [];
  return [
    rowPlot({
      title: 'Memory for the model and its work',
      description: 'What the process of each row took on top of what it takes without a model.',
      x: { label: 'memory (MiB)' },
      names: ['memory'],
      rows: rows.map((row) => ({
        label: labelIn(report, row),
        values: [{ value: row.memory && row.memory.increaseBytes / 2 ** 20, low: null, high: null }],
      })),
      mark: 'BAR',
    }),
  ];
}
