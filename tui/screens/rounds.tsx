/** A benchmark while it runs: the row that is measured, window by window, and those that are done. */
import { Box, Text } from 'ink';
import { useState } from 'react';
import { graphql } from '../graphql.ts';
import { useLive } from '../session/live.tsx';
import { ChartView } from '../ui/Chart.tsx';
import { age, number, printable } from '../ui/format.ts';
import { List } from '../ui/List.tsx';
import { intervalBar } from '../ui/plot.ts';
import { theme } from '../ui/theme.ts';
import { versionNames } from './benchmarks.tsx';
import { stateText } from './datasets.tsx';

const RoundsSubscription = graphql(`
  subscription TuiRounds($id: ID!, $after: SafeInt!) {
    jobEvents(id: $id, after: $after) { __typename seq ... on JobArtifactEvent { kind meta } }
  }
`);
const ProgressSubscription = graphql(`
  subscription TuiRoundsProgress($id: ID!) {
    jobProgress(id: $id) { phase itemsPerSecond metrics { name value } }
  }
`);

interface RunningBenchmark {
  id: string;
  state: string;
  startedAt: string | null;
  queuePosition: number | null;
  modelVersions: Parameters<typeof versionNames>[0]['modelVersions'];
}

/** A row that has been measured: `meta` of its artifact event. */
export interface DoneRow {
  n: number;
  model: number;
  batchSize: number;
  intraOpThreads: number;
  itemsPerSecond: number;
  p50Ms: number;
  p95Ms: number;
}

/** What a tick says about the row that is measured. */
export type Tick = Record<string, number>;

export interface Rounds {
  /** The newest tick; `cell` is its row. */
  now: Tick | null;
  /** Windows of that row, by their seconds. */
  windows: readonly Tick[];
}

/** With the ticks of one moment: a new row starts with no windows, and a window that comes again counts once. */
export function withTicks(before: Rounds, ticks: readonly Tick[]): Rounds {
  let { now, windows } = before;
  for (const tick of ticks) {
    if (tick.cell === undefined) continue;
    if (tick.cell !== now?.cell) windows = [];
    now = tick;
    if (tick.seconds !== undefined && tick.seconds !== windows.at(-1)?.seconds) windows = [...windows, tick];
  }
  return { now, windows };
}

/** By their numbers; a row that a later attempt measured again counts once. */
export const withDone = (before: readonly DoneRow[], added: readonly DoneRow[]): DoneRow[] =>
  [...new Map([...before, ...added].map((row) => [row.n, row])).values()].sort((a, b) => a.n - b.n);

interface Props {
  job: RunningBenchmark;
  width: number;
  height: number;
  /** The job has another state. */
  onChange(): void;
}

export function LiveRounds({ job, width, height, onChange }: Props) {
  const [rounds, setRounds] = useState<Rounds>({ now: null, windows: [] });
  const [phase, setPhase] = useState('');
  const [done, setDone] = useState<DoneRow[]>([]);
  useLive(RoundsSubscription, { id: job.id, after: 0 }, (items) => {
    const events = items.map(({ jobEvents }) => jobEvents);
    const measured = events.flatMap((e) => (e.__typename === 'JobArtifactEvent' && e.kind === 'SAMPLES' ? [e.meta as DoneRow] : []));
    setDone((before) => withDone(before, measured));
    if (events.some((event) => event.__typename === 'JobStateEvent')) onChange();
  });
  useLive(ProgressSubscription, { id: job.id }, (items) => {
    setPhase(items.at(-1)?.jobProgress.phase ?? '');
    const ticks = items.map(({ jobProgress }) => Object.fromEntries(jobProgress.metrics.map(({ name, value }) => [name, value])));
    setRounds((before) => withTicks(before, ticks));
  });
  const names = versionNames(job);
  const nameOf = (model: number | undefined) => names[model ?? -1] ?? `model ${model}`;
  const { now, windows } = rounds;
  const place = job.queuePosition ? `, ${job.queuePosition}. in the queue` : '';
  const head = ` ${stateText(job.state)}  ${printable(names.join(', '))}  ${job.startedAt ? `since ${age(job.startedAt)}` : `waits${place}`}`;
  const row = now
    ? `row ${(now.cell ?? 0) + 1} of ${now.cells}: ${nameOf(now.model)}, batch ${now.batchSize}, ${now.intraOpThreads} threads  ${phase}`
    : phase || 'It measures alone: it waits until no other job runs.';
  const speed = now?.itemsPerSecond === undefined ? '' : `  ${number(now.seconds)} s  ${number(now.itemsPerSecond)} images/s`;
  const series = (name: 'p50Ms' | 'p95Ms') => ({
    name: name === 'p50Ms' ? 'P50' : 'P95',
    points: windows.map((tick) => ({ x: tick.seconds ?? 0, y: tick[name] ?? 0 })),
  });
  const chart = { title: 'ms by seconds', series: [series('p50Ms'), series('p95Ms')] };
  const listHeight = done.length === 0 ? 0 : Math.min(done.length + 1, Math.floor(height / 2));
  const most = Math.max(...done.map(({ p95Ms }) => p95Ms), 1e-9);
  const barWidth = Math.floor(width / 4);
  return (
    <Box flexDirection="column" width={width} height={height}>
      <Text color={theme.accent} wrap="truncate">
        {head}
      </Text>
      <Text wrap="truncate">{` ${printable(row)}${speed}`}</Text>
      {windows.length > 0 && height - listHeight > 4 && (
        <ChartView chart={chart} width={width} height={height - 2 - listHeight} log={false} />
      )}
      {windows.length === 0 && <Box height={Math.max(0, height - 2 - listHeight)} />}
      {done.length > 0 && (
        <List
          rows={done}
          keyOf={({ n }) => String(n)}
          width={width}
          height={listHeight}
          empty=""
          columns={[
            { title: 'Done', width: 4, align: 'right', text: ({ n }) => String(n + 1) },
            { title: 'Model', text: ({ model }) => nameOf(model) },
            { title: 'Batch', width: 5, align: 'right', text: ({ batchSize }) => String(batchSize) },
            { title: 'Threads', width: 7, from: 60, align: 'right', text: ({ intraOpThreads }) => String(intraOpThreads) },
            { title: 'Images/s', width: 9, from: 60, align: 'right', text: ({ itemsPerSecond }) => number(itemsPerSecond) },
            { title: 'P95 ms', width: 9, align: 'right', text: ({ p95Ms }) => number(p95Ms) },
            { title: '', width: barWidth, text: ({ p95Ms }) => intervalBar(p95Ms, null, null, most, barWidth), color: () => theme.accent },
          ]}
        />
      )}
    </Box>
  );
}
