/** Two to four trainings beside each other: their curves in one chart, their last metrics, and the settings in which they differ. */
import { Box, Text } from 'ink';
import { useMemo, useState } from 'react';
import { graphql, type ResultOf } from '../graphql.ts';
import { useData } from '../session/live.tsx';
import { ChartView } from '../ui/Chart.tsx';
import { number, printable } from '../ui/format.ts';
import { useKeys } from '../ui/keys.tsx';
import { List } from '../ui/List.tsx';
import { useFrame } from '../ui/nav.tsx';
import { theme } from '../ui/theme.ts';
import { comparedCharts, type Difference, differencesOf, type Epoch, runMarks } from './curves.ts';
import { stateText } from './datasets.tsx';
import { epochsOf, useJobEvents } from './job.tsx';

const RunsQuery = graphql(`
  query TuiRuns($ids: [ID!]!) {
    nodes(ids: $ids) {
      ... on Job { id kind state spec model { name } datasetVersion { number dataset { name } } }
    }
  }
`);

/** What `--json` prints: the curves too, which the screen reads as events. */
export const CompareQuery = graphql(`
  query TuiCompare($ids: [ID!]!) {
    nodes(ids: $ids) {
      ... on Job {
        id kind state spec model { name } datasetVersion { number dataset { name } }
        metrics(maxPoints: 200) { name steps epochs values }
      }
    }
  }
`);

type Row = Difference & { what: string };
type Run = Extract<ResultOf<typeof RunsQuery>['nodes'][number], { kind: string }>;

const nameOf = ({ model, spec }: Run): string =>
  [model?.name, (spec as { preset?: string }).preset].filter((part) => typeof part === 'string').join(' · ');

/** A specification with names in place of ids. */
function settingsOf({ spec, model, datasetVersion }: Run): object {
  const { modelId: _model, datasetVersionId: _version, ...settings } = spec as Record<string, unknown>;
  const dataset = datasetVersion ? `${datasetVersion.dataset.name} v${datasetVersion.number}` : 'deleted';
  return { model: model?.name ?? 'deleted', dataset, ...settings };
}

export function Compare({ id }: { id: string }) {
  const { marked } = useFrame();
  const ids = id ? id.split(',') : marked;
  if (ids.length >= 2 && ids.length <= runMarks.length) return <Compared ids={ids} />;
  return (
    <Text color={theme.muted}>
      {` ${ids.length} runs are chosen; two to four are compared. Mark them in Jobs with \`m\`, then press \`c\`.`}
    </Text>
  );
}

function Compared({ ids }: { ids: readonly string[] }) {
  const { width, height } = useFrame();
  const { data, error, again } = useData(RunsQuery, { ids: [...ids] });
  const events = [
    useJobEvents(ids[0] ?? null, again),
    useJobEvents(ids[1] ?? null, again),
    useJobEvents(ids[2] ?? null, again),
    useJobEvents(ids[3] ?? null, again),
  ].slice(0, ids.length);
  const [axis, setAxis] = useState<'epoch' | 'step'>('epoch');
  const [chartAt, setChartAt] = useState(0);
  const [log, setLog] = useState(false);
  const runs = (data?.nodes ?? []).filter((node): node is Run => node !== null && 'kind' in node);
  // biome-ignore lint/correctness/useExhaustiveDependencies: the arrays of events are new when one has come.
  const { epochs, charts } = useMemo(() => {
    const epochs: Epoch[][] = events.map(epochsOf);
    const named = runs.map((run, i) => ({ name: nameOf(run), mark: runMarks[i] as string, epochs: epochs[i] ?? [] }));
    return { epochs, charts: comparedCharts(named, axis) };
  }, [...events, data, axis]);
  const step = (by: number) => setChartAt((at) => (at + by + charts.length) % Math.max(1, charts.length));
  useKeys([
    ...(charts.length > 1 ? [{ keys: ['c', 'right'], label: 'next chart', hint: true, run: () => step(1) }] : []),
    ...(charts.length > 1 ? [{ keys: 'left', label: 'previous chart', run: () => step(-1) }] : []),
    { keys: 'e', label: axis === 'epoch' ? 'by steps' : 'by epochs', hint: true, run: () => setAxis(axis === 'epoch' ? 'step' : 'epoch') },
    ...(charts.length > 0 ? [{ keys: 'y', label: log ? 'linear axis' : 'log axis', hint: true, run: () => setLog(!log) }] : []),
  ]);
  if (runs.length < ids.length)
    return (
      <Text color={theme.muted}>
        {error ? ' The runs cannot be read now.' : data ? ' One of these ids is of no job.' : ' Reading the runs …'}
      </Text>
    );

  const rows: Row[] = [
    ...charts.map(({ title, series }) => ({ what: 'last', name: title, values: series.map(({ points }) => number(points.at(-1)?.y)) })),
    ...differencesOf(runs.map(settingsOf)).map(({ name, values }) => ({
      what: 'setting',
      name: name.replace(/^hyperparameters\./, ''),
      values,
    })),
  ];
  const small = height < 14;
  const headHeight = small ? 0 : runs.length;
  const tableHeight = small ? 3 : Math.min(rows.length + 1, Math.floor((height - headHeight) / 2));
  const chart = charts[Math.min(chartAt, charts.length - 1)];
  const cell = Math.max(6, Math.min(16, Math.floor((width - 30) / runs.length) - 1));
  return (
    <Box flexDirection="column" width={width} height={height}>
      {runs.slice(0, headHeight).map((run, i) => {
        const last = epochs[i]?.at(-1);
        return (
          <Text key={run.id} color={theme.series[i % theme.series.length]} wrap="truncate">
            {` ${runMarks[i]}  ${stateText(run.state)}  ${printable(nameOf(run))}${last ? `  epoch ${last.epoch}, step ${last.step}` : ''}`}
          </Text>
        );
      })}
      {chart ? (
        <ChartView
          chart={{ ...chart, title: `${chart.title} by ${axis}s` }}
          width={width}
          height={height - headHeight - tableHeight}
          log={log}
        />
      ) : (
        <Box height={height - headHeight - tableHeight}>
          <Text color={theme.muted}> No run has ended an epoch yet.</Text>
        </Box>
      )}
      <List
        rows={rows}
        keyOf={({ what, name }) => `${what} ${name}`}
        width={width}
        height={tableHeight}
        empty="They differ in nothing."
        columns={[
          { title: 'What', width: 8, from: 60, text: ({ what }) => what },
          { title: 'Name', text: ({ name }) => name },
          ...runs.map((_run, i) => ({
            title: runMarks[i] as string,
            width: cell,
            align: 'right' as const,
            text: ({ values }: Row) => values[i] ?? '',
            color: () => theme.series[i % theme.series.length],
          })),
        ]}
      />
    </Box>
  );
}
