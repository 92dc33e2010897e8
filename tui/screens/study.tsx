/** The trials of a study, the best first, live. */
import { Box, Text } from 'ink';
import { graphql, type ResultOf } from '../graphql.ts';
import { useData } from '../session/live.tsx';
import { number } from '../ui/format.ts';
import { type Column, List } from '../ui/List.tsx';
import { useFrame } from '../ui/nav.tsx';
import { states, theme } from '../ui/theme.ts';

export const StudyQuery = graphql(`
  query TuiStudy($id: ID!, $orderBy: Objective) {
    study(id: $id) {
      paused preset sampler objectives population trialsWanted trialsEnded
      space { name }
      importance { name share }
      front { number }
      trials(first: 100, orderBy: $orderBy) {
        nodes { number generation state params values epochs copyOf job { id } modelVersion { number } }
      }
    }
  }
`);

type Study = NonNullable<ResultOf<typeof StudyQuery>['study']>;
type Trial = Study['trials']['nodes'][number];

interface Props {
  study: { id: string; objectives: readonly Study['objectives'][number][] };
  isLive: boolean;
  width: number;
  height: number;
}

export function StudyTrials({ study: { id, objectives }, isLive, width, height }: Props) {
  const { go } = useFrame();
  const { data } = useData(StudyQuery, { id, orderBy: objectives[0] ?? null }, isLive ? 1000 : undefined);
  const study = data?.study;
  if (!study) return <Text color={theme.muted}> Reading the trials …</Text>;
  const head = headOf(study);
  const front = new Set(study.front.map((trial) => trial.number));
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
          { title: 'Hyperparameters', text: ({ params }) => paramsOf(params) },
        ]}
      />
    </Box>
  );
}

function headOf({ sampler, preset, population, trialsEnded, trialsWanted, paused, importance }: Study): string[] {
  const done = ` ${trialsEnded} of ${trialsWanted} trials  ${preset}  ${sampler}, generations of ${population}${paused ? '  PAUSED' : ''}`;
  const shares = importance.slice(0, 5).map(({ name, share }) => `${name} ${Math.round(100 * share)} %`);
  return shares.length > 0 ? [done, ` Most important: ${shares.join('  ')}`] : [done];
}

const paramsOf = (params: unknown): string =>
  Object.entries((params ?? {}) as Record<string, number | string>)
    .map(([name, value]) => `${name} ${typeof value === 'number' ? number(value) : value}`)
    .join('  ');
