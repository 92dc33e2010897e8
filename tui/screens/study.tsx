/** The trials of a study, the best first, live; `c` shows them as points, and which hyperparameters matter. */
import { Box, Text } from 'ink';
import { useEffect, useRef, useState } from 'react';
import { graphql, type ResultOf } from '../graphql.ts';
import { useData, useLive } from '../session/live.tsx';
import { ChartView } from '../ui/Chart.tsx';
import { bar, number, padTo } from '../ui/format.ts';
import { useKeys } from '../ui/keys.tsx';
import { type Column, List } from '../ui/List.tsx';
import { useFrame } from '../ui/nav.tsx';
import { states, theme } from '../ui/theme.ts';

export const StudyQuery = graphql(`
  query TuiStudy($id: ID!, $orderBy: Objective) {
    study(id: $id) {
      lastSeq paused preset sampler objectives population trialsWanted trialsEnded
      space { name }
      importance { name share }
      front { number values }
      trials(first: 100, orderBy: $orderBy) {
        nodes { number generation state failure { code } params values epochs copyOf job { id } modelVersion { number } }
      }
    }
  }
`);

const EventsSubscription = graphql(`
  subscription TuiStudyEvents($id: ID!, $after: SafeInt!) {
    studyEvents(id: $id, after: $after) { seq }
  }
`);

/** Events of a study come in bursts: the trials are read once for those that are closer together than this. */
const burstMs = 300;

type Study = NonNullable<ResultOf<typeof StudyQuery>['study']>;
type Trial = Study['trials']['nodes'][number];

interface Props {
  study: { id: string; objectives: readonly Study['objectives'][number][] };
  width: number;
  height: number;
}

export function StudyTrials({ study: { id, objectives }, width, height }: Props) {
  const { go } = useFrame();
  const { data, again } = useData(StudyQuery, { id, orderBy: objectives[0] ?? null });
  useStudyChanges(id, data?.study?.lastSeq, again);
  const [isChart, setChart] = useState(false);
  const study = data?.study;
  useKeys(study ? [{ keys: 'c', label: isChart ? 'table' : 'chart', hint: true, run: () => setChart(!isChart) }] : []);
  if (!study) return <Text color={theme.muted}>{data ? ' The study was deleted.' : ' Reading the trials …'}</Text>;
  const head = headOf(study);
  const front = new Set(study.front.map((trial) => trial.number));
  if (isChart) return <StudyChart study={study} width={width} height={height} />;
  return (
    <Box flexDirection="column" width={width} height={height}>
      {head.map((text) => (
        <Text key={text} color={theme.muted} wrap="truncate">
          {text}
        </Text>
      ))}
      <List
        rows={study.trials.nodes}
        keyOf={(trial) => String(trial.number)}
        width={width}
        height={height - head.length}
        empty="The first trials are being proposed."
        onOpen={{ label: 'open the training', run: ({ job }) => job && go('job', job.id) }}
        columns={[
          { title: 'Trial', width: 6, align: 'right', text: (trial) => String(trial.number) },
          { title: '', width: 1, text: (trial) => (front.has(trial.number) ? '*' : '') },
          {
            title: 'State',
            width: 12,
            text: ({ state, copyOf }) => (copyOf === null ? `${states[state]?.sign ?? ' '} ${state}` : `= trial ${copyOf}`),
            color: ({ state }) => states[state]?.color,
          },
          ...objectives.map(
            (name, place): Column<Trial> => ({ title: name, width: 12, align: 'right', text: ({ values }) => number(values?.[place]) }),
          ),
          { title: 'Epochs', width: 6, from: 70, align: 'right', text: ({ epochs }) => String(epochs) },
          { title: 'Hyperparameters', text: ({ failure, params }) => `${failure ? `${failure.code}  ` : ''}${paramsOf(params)}` },
        ]}
      />
    </Box>
  );
}

/** Calls `onChange` for what happens behind the first answer, whose last event is `lastSeq`: also when an extension continues a study that has ended. */
function useStudyChanges(id: string, lastSeq: number | undefined, onChange: () => void): void {
  const first = useRef<number>(undefined);
  first.current ??= lastSeq;
  const timer = useRef<NodeJS.Timeout>(undefined);
  const change = () => {
    timer.current ??= setTimeout(() => {
      timer.current = undefined;
      onChange();
    }, burstMs);
  };
  // They end when the study is deleted.
  useLive(EventsSubscription, first.current === undefined ? null : { id, after: first.current }, change, change);
  useEffect(() => () => clearTimeout(timer.current), []);
}

/** The first objective by the second one, or by the number of the trial; below it the importance of the hyperparameters. */
function StudyChart({ study, width, height }: { study: Study; width: number; height: number }) {
  const { objectives, trials, front, trialsEnded, importance } = study;
  const [first = '', second] = objectives;
  const best = new Set(front.map((trial) => trial.number));
  const pointsOf = (some: readonly Pick<Trial, 'number' | 'values'>[]) =>
    some.flatMap(({ number: n, values }) => (values ? [{ x: second ? (values[1] as number) : n, y: values[0] as number }] : []));
  const others = trials.nodes.filter((trial) => trial.copyOf === null && !best.has(trial.number));
  const part = trialsEnded > trials.nodes.length ? `, the best ${trials.nodes.length} trials` : '';
  const bars = importance.slice(0, Math.floor(height / 3));
  return (
    <Box flexDirection="column" width={width} height={height}>
      <ChartView
        chart={{
          title: `${first} by ${second ?? 'trial'}${part}`,
          series: [
            { name: 'trials', isScattered: true, points: pointsOf(others) },
            { name: second ? 'front' : 'best', mark: '*', isScattered: true, points: pointsOf(front) },
          ],
        }}
        width={width}
        height={height - (bars.length > 0 ? bars.length + 1 : 0)}
        log={false}
      />
      {bars.length > 0 && <Text bold> Importance of the hyperparameters</Text>}
      {bars.map(({ name, share }) => (
        <Text key={name} wrap="truncate">
          {` ${padTo(name, 16)} ${bar(share, Math.max(12, width - 20))}`}
        </Text>
      ))}
    </Box>
  );
}

function headOf({ sampler, preset, population, trialsEnded, trialsWanted, paused, importance }: Study): string[] {
  const done = ` ${trialsEnded} of ${trialsWanted} trials  ${preset}  ${sampler}, generations of ${population}${paused ? '  PAUSED' : ''}`;
  const shares = importance.slice(0, 5).map(({ name, share }) => `${name} ${Math.round(100 * share)} %`);
  return shares.length > 0 ? [done, ` Most important: ${shares.join('  ')}`] : [done];
}

const paramsOf = (params: unknown): string =>
  Object.entries((params ?? {}) as Record<string, number | string | boolean>)
    .map(([name, value]) => `${name} ${typeof value === 'number' ? number(value) : value}`)
    .join('  ');
