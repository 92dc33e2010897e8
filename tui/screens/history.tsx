/** How the versions of a model, or those that a deployment has served, were measured over time. */
import { Box, Text } from 'ink';
import { graphql, type ResultOf } from '../graphql.ts';
import { useData } from '../session/live.tsx';
import { ChartView } from '../ui/Chart.tsx';
import { age, number, printable, wrap } from '../ui/format.ts';
import { List } from '../ui/List.tsx';
import { useFrame } from '../ui/nav.tsx';
import { theme } from '../ui/theme.ts';
import type { Chart } from './curves.ts';
import { refreshMs } from './datasets.tsx';

export const ModelHistoryQuery = graphql(`
  query TuiModelHistory($id: String!) {
    model(name: $id) {
      name
      benchmarkHistory(first: 50) {
        nodes {
          measuredAt scenario
          job { id report { id } }
          modelVersion { number }
          machine { processor cores memoryBytes platform arch kernel node }
          row { n batchSize intraOpThreads itemsPerSecond latency { percentiles { percent ns lowNs highNs } } }
          accuracy { value }
          differences { name before after }
          regressions { says }
        }
      }
    }
  }
`);

export const DeploymentHistoryQuery = graphql(`
  query TuiDeploymentHistory($id: String!) {
    deployment(name: $id) {
      name
      benchmarkHistory(first: 50) {
        nodes {
          measuredAt scenario
          job { id report { id } }
          modelVersion { number }
          machine { processor cores memoryBytes platform arch kernel node }
          row { n batchSize intraOpThreads itemsPerSecond latency { percentiles { percent ns lowNs highNs } } }
          accuracy { value }
          differences { name before after }
          regressions { says }
        }
      }
    }
  }
`);

export type HistoryPoint = NonNullable<ResultOf<typeof ModelHistoryQuery>['model']>['benchmarkHistory']['nodes'][number];

const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ';

/** A letter for each machine, the first machine `A`: only points of the same letter can be compared. */
export function machineLetters(newestFirst: readonly HistoryPoint[]): Map<string, string> {
  const machines = [...new Set(newestFirst.toReversed().map(machineOf))];
  return new Map(machines.map((machine, i) => [machine, letters[i] ?? '?']));
}

const machineOf = ({ machine }: HistoryPoint): string => Object.values(machine).join(' ');

const percentileOf = ({ row }: HistoryPoint, percent: number) => row.latency?.percentiles.find((one) => one.percent === percent);
const msOf = (point: HistoryPoint, percent: number): number | null => {
  const ns = percentileOf(point, percent)?.ns;
  return ns == null ? null : ns / 1e6;
};

/** P95 of each machine and scenario over the benchmarks; the median where a point has too few samples for P95. */
export function chartOf(newestFirst: readonly HistoryPoint[]): Chart {
  const machines = machineLetters(newestFirst);
  const oldestFirst = newestFirst.toReversed();
  const curveOf = (point: HistoryPoint) =>
    `machine ${machines.get(machineOf(point))}${point.scenario === 'SINGLE_STREAM' ? '' : ` ${point.scenario}`}`;
  const percent = newestFirst.every((point) => msOf(point, 95) !== null) ? 95 : 50;
  return {
    title: `P${percent} ms`,
    series: [...new Set(oldestFirst.map(curveOf))].map((name) => ({
      name,
      mark: name.charAt('machine '.length),
      points: oldestFirst.flatMap((point, i) => {
        const y = msOf(point, percent);
        return curveOf(point) === name && y !== null ? [{ x: i + 1, y }] : [];
      }),
    })),
  };
}

const interval = (point: HistoryPoint): string => {
  const found = percentileOf(point, 95);
  return found?.lowNs && found.highNs ? `${number(found.lowNs / 1e6)}–${number(found.highNs / 1e6)}` : '';
};

/** What people should know of a point: first what became worse. */
const noteOf = ({ regressions, differences }: HistoryPoint): string =>
  [...regressions.map(({ says }) => says), ...differences.map(({ name, before, after }) => `${name}: ${before} → ${after}`)].join('  ');

function History({ name, points }: { name: string; points: readonly HistoryPoint[] }) {
  const { width, height, go, say } = useFrame();
  const machines = machineLetters(points);
  const worse = points.find(({ regressions }) => regressions.length > 0);
  const lines = worse ? wrap(`! ${worse.regressions[0]?.says}`, width - 2).slice(0, height < 16 ? 1 : 3) : [];
  const chartHeight = points.length > 1 && height >= 16 ? Math.floor(height / 3) : 0;
  return (
    <Box flexDirection="column" width={width} height={height}>
      <Text bold wrap="truncate">{` Benchmarks of ${printable(name)}`}</Text>
      {lines.map((line) => (
        <Text key={line} color={theme.bad} wrap="truncate">{` ${line}`}</Text>
      ))}
      {chartHeight > 0 && <ChartView chart={chartOf(points)} width={width} height={chartHeight} log={false} />}
      <List
        rows={points}
        keyOf={({ job, modelVersion }) => `${job.id} ${modelVersion?.number}`}
        width={width}
        height={height - 1 - lines.length - chartHeight}
        empty="No benchmark has measured it yet."
        onOpen={{
          label: 'open the report',
          run: ({ job }) => (job.report ? go('report', job.report.id) : say('There is no report.', 'bad')),
        }}
        columns={[
          { title: 'Age', width: 7, text: ({ measuredAt }) => age(measuredAt) },
          {
            title: 'Version',
            width: 7,
            align: 'right',
            text: ({ modelVersion }) => (modelVersion ? String(modelVersion.number) : 'deleted'),
          },
          { title: 'On', width: 2, text: (point) => machines.get(machineOf(point)) ?? '' },
          { title: 'Batch', width: 5, from: 90, align: 'right', text: ({ row }) => String(row.batchSize) },
          { title: 'Threads', width: 7, from: 60, align: 'right', text: ({ row }) => String(row.intraOpThreads) },
          { title: 'P50 ms', width: 7, from: 50, align: 'right', text: (point) => number(msOf(point, 50)) },
          { title: 'P95 ms', width: 7, align: 'right', text: (point) => number(msOf(point, 95)) },
          { title: '95 % interval', width: 13, from: 100, text: interval },
          { title: 'Images/s', width: 8, from: 70, align: 'right', text: ({ row }) => number(row.itemsPerSecond) },
          { title: 'Accuracy', width: 8, from: 80, align: 'right', text: ({ accuracy }) => number(accuracy?.value) },
          {
            title: 'Notes',
            text: (point) => `${point.regressions.length > 0 ? '! ' : ''}${noteOf(point)}`,
            color: ({ regressions }) => (regressions.length > 0 ? theme.bad : theme.muted),
          },
        ]}
      />
    </Box>
  );
}

export function ModelHistory({ id }: { id: string }) {
  const { data } = useData(ModelHistoryQuery, { id }, refreshMs);
  if (!data?.model) return <Text color={theme.muted}>{data ? ' There is no such model.' : ' Reading …'}</Text>;
  return <History name={data.model.name} points={data.model.benchmarkHistory.nodes} />;
}

export function DeploymentHistory({ id }: { id: string }) {
  const { data } = useData(DeploymentHistoryQuery, { id }, refreshMs);
  if (!data?.deployment) return <Text color={theme.muted}>{data ? ' There is no such deployment.' : ' Reading …'}</Text>;
  return <History name={`what ${data.deployment.name} has served`} points={data.deployment.benchmarkHistory.nodes} />;
}
