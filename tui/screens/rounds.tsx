/** A benchmark while it runs: its rows with the figures of their latest rounds. */
import { Box, Text } from 'ink';
import { useState } from 'react';
import { graphql } from '../graphql.ts';
import { useLive } from '../session/live.tsx';
import { ChartView } from '../ui/Chart.tsx';
import { age, number, printable, threadsText } from '../ui/format.ts';
import { List } from '../ui/List.tsx';
import { intervalBar } from '../ui/plot.ts';
import { theme } from '../ui/theme.ts';
import { versionNames } from './benchmarks.tsx';
import { stateText } from './datasets.tsx';

const StatesSubscription = graphql(`
  subscription TuiRounds($id: ID!, $after: SafeInt!) {
    jobEvents(id: $id, after: $after) { __typename seq }
  }
`);
const ProgressSubscription = graphql(`
  subscription TuiRoundsProgress($id: ID!) {
    jobProgress(id: $id) { phase itemsPerSecond metrics { name value } }
  }
`);

/** What a message says about the row that is measured. `round` and the figures are those of the row's latest block. */
export type Tick = Record<string, number>;

/** A row, and its P95 in milliseconds by rounds, from 1. */
export interface SeenRow {
  latest: Tick;
  points: readonly { x: number; y: number }[];
}

export interface Rounds {
  /** The row that is measured. */
  now: Tick | null;
  rows: ReadonlyMap<number, SeenRow>;
}

/** Curves that a chart can show apart. */
const curvesMax = 4;

/** With the ticks of one moment: a block whose figures come again counts once. */
export function withTicks(before: Rounds, ticks: readonly Tick[]): Rounds {
  const rows = new Map(before.rows);
  let { now } = before;
  for (const tick of ticks) {
    if (tick.cell === undefined) continue;
    now = tick;
    const points = rows.get(tick.cell)?.points ?? [];
    const x = (tick.round ?? -1) + 1;
    const isNew = tick.p95Ms !== undefined && points.at(-1)?.x !== x;
    rows.set(tick.cell, { latest: tick, points: isNew ? [...points, { x, y: tick.p95Ms as number }] : points });
  }
  return { now, rows };
}

interface RunningBenchmark {
  id: string;
  state: string;
  startedAt: string | null;
  queuePosition: number | null;
  modelVersions: Parameters<typeof versionNames>[0]['modelVersions'];
}

interface Props {
  job: RunningBenchmark;
  width: number;
  height: number;
  /** The job has another state. */
  onChange(): void;
}

export function LiveRounds({ job, width, height, onChange }: Props) {
  const [{ now, rows }, setRounds] = useState<Rounds>({ now: null, rows: new Map() });
  const [phase, setPhase] = useState('');
  useLive(StatesSubscription, { id: job.id, after: 0 }, (items) => {
    if (items.some(({ jobEvents }) => jobEvents.__typename === 'JobStateEvent')) onChange();
  });
  useLive(ProgressSubscription, { id: job.id }, (items) => {
    setPhase(items.at(-1)?.jobProgress.phase ?? '');
    const ticks = items.map(({ jobProgress }) => Object.fromEntries(jobProgress.metrics.map(({ name, value }) => [name, value])));
    setRounds((before) => withTicks(before, ticks));
  });
  const names = versionNames(job);
  const nameOf = (model: number | undefined) => names[model ?? -1] ?? `model ${model}`;
  const place = job.queuePosition ? `, ${job.queuePosition}. in the queue` : '';
  const head = ` ${stateText(job.state)}  ${printable(names.join(', '))}  ${job.startedAt ? `since ${age(job.startedAt)}` : `waits${place}`}`;
  const rounds = Math.max(0, ...[...rows.values()].map(({ points }) => points.at(-1)?.x ?? 0));
  const row = now
    ? `row ${(now.cell ?? 0) + 1} of ${now.cells}: ${nameOf(now.model)}, batch ${now.batchSize}, ${threadsText(now)} threads  ${phase}`
    : phase || 'It measures alone: it waits until no other job runs.';
  const seen = [...rows].sort(([a], [b]) => a - b).map(([n, found]) => ({ n, ...found }));
  const measured = seen.filter(({ points }) => points.length > 0);
  const fastest = measured.toSorted((a, b) => (a.latest.p95Ms ?? 0) - (b.latest.p95Ms ?? 0)).slice(0, curvesMax);
  const chart = { title: 'P95 in ms by rounds', series: fastest.map(({ n, points }) => ({ name: `row ${n + 1}`, points })) };
  const listHeight = seen.length === 0 ? 0 : Math.min(seen.length + 1, Math.floor(height / 2));
  const most = Math.max(...measured.map(({ latest }) => latest.p95Ms ?? 0), 1e-9);
  const barWidth = Math.floor(width / 4);
  const figure = (value: number | undefined) => (value === undefined ? '' : number(value));
  return (
    <Box flexDirection="column" width={width} height={height}>
      <Text color={theme.accent} wrap="truncate">
        {head}
      </Text>
      <Text wrap="truncate">{` ${printable(row)}${rounds > 0 ? `  round ${rounds}` : ''}`}</Text>
      {fastest.length > 0 && height - listHeight > 4 && (
        <ChartView chart={chart} width={width} height={height - 2 - listHeight} log={false} />
      )}
      {fastest.length === 0 && <Box height={Math.max(0, height - 2 - listHeight)} />}
      {seen.length > 0 && (
        <List
          rows={seen}
          keyOf={({ n }) => String(n)}
          width={width}
          height={listHeight}
          empty=""
          columns={[
            { title: 'Row', width: 4, align: 'right', text: ({ n }) => String(n + 1) },
            { title: 'Model', text: ({ latest }) => nameOf(latest.model) },
            { title: 'Batch', width: 5, align: 'right', text: ({ latest }) => String(latest.batchSize) },
            { title: 'Threads', width: 7, from: 60, align: 'right', text: ({ latest }) => threadsText(latest) },
            { title: 'Images/s', width: 9, from: 60, align: 'right', text: ({ latest }) => figure(latest.itemsPerSecond) },
            { title: 'P95 ms', width: 9, align: 'right', text: ({ latest }) => figure(latest.p95Ms) },
            {
              title: '',
              width: barWidth,
              text: ({ latest }) => (latest.p95Ms === undefined ? '' : intervalBar(latest.p95Ms, null, null, most, barWidth)),
              color: () => theme.accent,
            },
          ]}
        />
      )}
    </Box>
  );
}
