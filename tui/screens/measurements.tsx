/** The rows of a benchmark, while it runs and when it has ended; or those of several benchmarks together. */
import { Box, Text } from 'ink';
import { useEffect, useState } from 'react';
import { useClient } from 'urql';
import { graphql, type ResultOf } from '../graphql.ts';
import { useData } from '../session/live.tsx';
import { age, bytes, milliseconds, number, padTo, printable, threadsText, wrap } from '../ui/format.ts';
import { useKeys } from '../ui/keys.tsx';
import { List } from '../ui/List.tsx';
import { useFrame } from '../ui/nav.tsx';
import { intervalBar } from '../ui/plot.ts';
import { states, theme } from '../ui/theme.ts';
import { versionNames } from './benchmarks.tsx';
import { stateText } from './datasets.tsx';
import { hasEnded, useJobKeys } from './jobs.tsx';
import { LiveRounds } from './rounds.tsx';

export const MeasurementsQuery = graphql(`
  query TuiMeasurements($id: ID!) {
    job(id: $id) {
      id kind state createdAt startedAt endedAt queuePosition
      failure { code message retryable }
      modelVersions { number model { name } }
      report {
        id createdAt verdict
        technical {
          profile target
          models { name number precision }
          choice { n }
          rows {
            n model engine batchSize intraOpThreads instances verdict itemsPerSecond
            memory { increaseBytes }
            latency { percentiles { percent ns lowNs highNs } }
            reasons { code message }
          }
        }
      }
    }
  }
`);

export type BenchmarkJob = NonNullable<ResultOf<typeof MeasurementsQuery>['job']>;
type ReportRow = NonNullable<BenchmarkJob['report']>['technical']['rows'][number];
type Percentile = NonNullable<ReportRow['latency']>['percentiles'][number];

export interface Row extends ReportRow {
  key: string;
  name: string;
  isChosen: boolean;
}

/** The rows of all reports; with several each says which benchmark it is of. */
export const rowsOf = (jobs: readonly BenchmarkJob[]): Row[] =>
  jobs.flatMap(({ id, report }, i) =>
    (report?.technical.rows ?? []).map((row) => {
      const { name, number: version, precision } = report?.technical.models[row.model] ?? { name: '?', number: 0, precision: '' };
      const of = jobs.length > 1 ? `${'ABCD'[i]} ` : '';
      return {
        ...row,
        key: `${id} ${row.n}`,
        name: `${of}${name} v${version} ${precision}`,
        isChosen: row.n === report?.technical.choice.n,
      };
    }),
  );

/** Differences below this are not told apart, as in the report. */
const differenceMin = 0.03;

/** How much longer or shorter an image takes than in another row, by the medians; ≈ where their intervals meet. */
export function against(row: Row, reference: Row): string {
  if (row.key === reference.key) return 'reference';
  const [a, b] = [perImage(reference), perImage(row)];
  if (!a || !b) return 'too few samples';
  const change = b.ns / a.ns - 1;
  const isApart = (a.highNs < b.lowNs || b.highNs < a.lowNs) && Math.abs(change) >= differenceMin;
  return isApart ? `${change > 0 ? '+' : '−'}${number(Math.abs(change * 100))} % ${change > 0 ? 'slower' : 'faster'}` : '≈ the same';
}

const percentileOf = ({ latency }: ReportRow, percent: number): Percentile | undefined =>
  latency?.percentiles.find((percentile) => percentile.percent === percent);

function perImage(row: ReportRow): { ns: number; lowNs: number; highNs: number } | null {
  const { ns, lowNs, highNs } = percentileOf(row, 50) ?? { ns: null, lowNs: null, highNs: null };
  if (ns === null || lowNs === null || highNs === null) return null;
  return { ns: ns / row.batchSize, lowNs: lowNs / row.batchSize, highNs: highNs / row.batchSize };
}

/** What the bars of the list show. */
interface Measure {
  title: string;
  text(row: Row): string;
  /** Value, and the ends of its interval. */
  of(row: Row): readonly [number, number | null, number | null] | null;
}

const latency = (percent: number): Measure => ({
  title: `P${percent}`,
  text: (row) => milliseconds(percentileOf(row, percent)?.ns),
  of(row) {
    const found = percentileOf(row, percent);
    return found?.ns == null ? null : [found.ns, found.lowNs, found.highNs];
  },
});

const measures: readonly Measure[] = [
  latency(95),
  latency(99),
  latency(50),
  {
    title: 'images/s',
    text: ({ itemsPerSecond }) => number(itemsPerSecond),
    of: ({ itemsPerSecond }) => (itemsPerSecond === null ? null : [itemsPerSecond, null, null]),
  },
];

export function Measurements({ id }: { id: string }) {
  const ids = id.split(',');
  return ids.length > 1 ? <Several ids={ids} /> : <One id={id} />;
}

function One({ id }: { id: string }) {
  const { width, height, go } = useFrame();
  const { data, again } = useData(MeasurementsQuery, { id });
  const job = data?.job;
  const jobKeys = useJobKeys();
  useKeys(
    job
      ? [
          ...jobKeys(job),
          ...(job.report ? [{ keys: 'o', label: 'open the report', hint: true, run: () => go('report', job.report?.id ?? '') }] : []),
          { keys: 'J', label: 'open its job', hint: !job.report, run: () => go('job', id) },
        ]
      : [],
  );
  if (!job) return <Text color={theme.muted}>{data ? ' There is no such benchmark.' : ' Reading …'}</Text>;
  if (!hasEnded(job)) return <LiveRounds job={job} width={width} height={height} onChange={again} />;
  const state = job.report?.verdict ?? job.state;
  const about = job.report ? `  ${job.report.technical.profile} by ${job.report.technical.target}` : '';
  const failure = job.failure ? wrap(`${job.failure.code}: ${job.failure.message}`, width - 2) : [];
  return (
    <Box flexDirection="column" width={width} height={height}>
      <Text color={states[state]?.color} wrap="truncate">
        {` ${stateText(state)}  ${printable(versionNames(job).join(', '))}${about}  ended ${age(job.endedAt)} ago`}
      </Text>
      {failure.map((line) => (
        <Text key={line} color={theme.bad}>{` ${line}`}</Text>
      ))}
      {job.report && <Rows rows={rowsOf([job])} width={width} height={height - 1} />}
    </Box>
  );
}

/** Benchmarks that have ended never change: they are read once. */
function Several({ ids }: { ids: readonly string[] }) {
  const { width, height } = useFrame();
  const client = useClient();
  const [jobs, setJobs] = useState<BenchmarkJob[] | null>(null);
  const wanted = ids.join();
  useEffect(() => {
    let left = false;
    const read = async () => {
      const answers = await Promise.all(wanted.split(',').map((id) => client.query(MeasurementsQuery, { id }).toPromise()));
      if (!left) setJobs(answers.flatMap(({ data }) => data?.job ?? []));
    };
    void read();
    return () => {
      left = true;
    };
  }, [client, wanted]);
  if (!jobs) return <Text color={theme.muted}> Reading …</Text>;
  return (
    <Box flexDirection="column" width={width} height={height}>
      {jobs.map((job, i) => (
        <Text key={job.id} color={states[job.report?.verdict ?? '']?.color} wrap="truncate">
          {` ${'ABCD'[i]}  ${stateText(job.report?.verdict)}  ${printable(versionNames(job).join(', '))}  ended ${age(job.endedAt)} ago`}
        </Text>
      ))}
      <Rows rows={rowsOf(jobs)} width={width} height={height - jobs.length} />
    </Box>
  );
}

function Rows({ rows, width, height }: { rows: readonly Row[]; width: number; height: number }) {
  const [measureAt, setMeasureAt] = useState(0);
  const [reference, setReference] = useState<Row | null>(null);
  const [cursor, setCursor] = useState<Row | null>(null);
  const measure = measures[measureAt] as Measure;
  const most = Math.max(...rows.map((row) => Math.max(measure.of(row)?.[0] ?? 0, measure.of(row)?.[2] ?? 0)), 1e-9);
  const selected = cursor ?? rows[0];
  const details = selected ? detailsOf(selected, width) : [];
  const listHeight = Math.max(3, Math.min(rows.length + 1, height - Math.min(details.length + 1, Math.floor(height / 2))));
  const barWidth = Math.floor(width * (reference ? 0.15 : 0.3));
  return (
    <>
      <List
        rows={rows}
        keyOf={({ key }) => key}
        width={width}
        height={listHeight}
        empty="It has measured nothing."
        onCursor={setCursor}
        keys={(row) => [
          {
            keys: 'm',
            label: `show ${measures[(measureAt + 1) % measures.length]?.title}`,
            hint: true,
            run: () => setMeasureAt((measureAt + 1) % measures.length),
          },
          {
            keys: 'space',
            label: row.key === reference?.key ? 'compare with none' : 'compare with this',
            hint: true,
            run: () => setReference(row.key === reference?.key ? null : row),
          },
        ]}
        columns={[
          { title: '', width: 1, text: ({ isChosen }) => (isChosen ? '★' : ''), color: () => theme.accent },
          { title: 'Model', text: ({ name }) => name, color: ({ verdict }) => states[verdict]?.color },
          { title: 'Engine', width: 18, from: 110, text: ({ engine }) => engine },
          { title: 'Batch', width: 5, align: 'right', text: ({ batchSize }) => String(batchSize) },
          { title: 'Threads', width: 7, from: 60, align: 'right', text: (row) => threadsText(row) },
          { title: 'Images/s', width: 9, from: 70, align: 'right', text: ({ itemsPerSecond }) => number(itemsPerSecond) },
          { title: measure.title, width: 10, align: 'right', text: measure.text },
          ...(reference ? [{ title: 'An image takes', width: 16, from: 60, text: (row: Row) => against(row, reference) }] : []),
          {
            title: '',
            width: barWidth,
            text(row) {
              const value = measure.of(row);
              return value ? intervalBar(...value, most, barWidth) : stateText(row.verdict);
            },
            color: () => theme.accent,
          },
        ]}
      />
      {listHeight + details.length < height && <Text> </Text>}
      {details.slice(0, height - listHeight).map(({ text, color }) => (
        <Text key={text} color={color} wrap="truncate">{` ${text}`}</Text>
      ))}
    </>
  );
}

/** All percentiles of a row on one scale, each with its interval, and what else to know. */
function detailsOf(row: Row, width: number): { text: string; color?: string | undefined }[] {
  const percentiles = row.latency?.percentiles ?? [];
  const most = Math.max(1, ...percentiles.map(({ ns, highNs }) => Math.max(ns ?? 0, highNs ?? 0)));
  const engine = `${row.engine}, batch ${row.batchSize}, ${threadsText(row)} threads`;
  const memory = row.memory ? `, ${bytes(row.memory.increaseBytes)} of memory` : '';
  return [
    { text: printable(`${row.name}: ${engine}, ${number(row.itemsPerSecond)} images/s${memory}`), color: states[row.verdict]?.color },
    ...percentiles.map(({ percent, ns, lowNs, highNs }) => {
      const interval = lowNs === null ? '' : `(${milliseconds(lowNs)} to ${milliseconds(highNs)})`;
      const bar = ns === null ? '' : intervalBar(ns, lowNs, highNs, most, Math.max(4, width - 46));
      return {
        text: `P${padTo(String(percent), 4)} ${padTo(milliseconds(ns), 10, 'right')} ${width >= 60 ? `${padTo(interval, 26)} ` : ''}${bar}`,
      };
    }),
    ...row.reasons.flatMap(({ code, message }) => wrap(`${code}: ${message}`, width - 2).map((text) => ({ text, color: theme.warn }))),
  ];
}
