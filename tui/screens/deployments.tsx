/** Deployments, and one with its revisions. */
import { Box, Text } from 'ink';
import { useAction } from '../actions.ts';
import { graphql } from '../graphql.ts';
import { useData } from '../session/live.tsx';
import { age, continued, padTo, printable } from '../ui/format.ts';
import type { KeyRow } from '../ui/keys.tsx';
import { List } from '../ui/List.tsx';
import { useFrame } from '../ui/nav.tsx';
import { states, theme } from '../ui/theme.ts';
import { refreshMs, stateText } from './datasets.tsx';

export const DeploymentsQuery = graphql(`
  query TuiDeployments {
    inferenceHealth { state url restarts reason }
    deployments(first: 100) {
      nodes {
        name
        active { number activatedAt modelVersion { number model { name } } }
        loading { number }
      }
    }
  }
`);

export const DeploymentQuery = graphql(`
  query TuiDeployment($id: String!) {
    deployment(name: $id) {
      name
      active { number }
      revisions { number state reason createdAt createdByName settings { engine } modelVersion { number model { name } } }
      snippet(language: CURL)
    }
  }
`);

const modelOf = (version: { number: number; model: { name: string } | null } | null): string =>
  version ? `${version.model?.name ?? ''} v${version.number}` : 'deleted';

/** The keys that concern one deployment, on both screens. */
function useDeploymentKeys(): (name: string) => KeyRow[] {
  const { confirm, say, go } = useFrame();
  const rollback = useAction('rollback');
  const undeploy = useAction('undeploy');
  const tell = (done: string, errors: readonly { message: string }[]) =>
    errors.length > 0 ? say(errors.map(({ message }) => message).join(' '), 'bad') : say(done);
  return (name) => [
    { keys: 'i', label: 'try an image', does: 'infer', hint: true, run: () => go('infer', name) },
    {
      keys: 'b',
      label: 'roll back',
      does: 'rollback',
      hint: true,
      run: () =>
        confirm(
          `Put back what served before under ${name}?`,
          () => void rollback({ input: { name } }).then(({ errors }) => tell(`${name} is being rolled back.`, errors)),
        ),
    },
    {
      keys: 'D',
      label: 'take away',
      does: 'undeploy',
      run: () =>
        confirm(
          `Take ${name} away? Its requests are refused from then on.`,
          () => void undeploy({ input: { name } }).then(({ errors }) => tell(`${name} is gone.`, errors)),
        ),
    },
  ];
}

export function Deployments() {
  const { width, height, go } = useFrame();
  const { data } = useData(DeploymentsQuery, {}, refreshMs);
  const keys = useDeploymentKeys();
  const health = data?.inferenceHealth;
  return (
    <Box flexDirection="column" width={width} height={height}>
      <Text wrap="truncate" color={health?.state === 'READY' || health?.state === 'IDLE' ? theme.good : theme.warn}>
        {health
          ? ` Inference host ${health.state}  ${health.url ?? ''}  ${health.restarts} restarts  ${printable(health.reason ?? '')}`
          : ''}
      </Text>
      <List
        rows={data?.deployments.nodes ?? []}
        keyOf={({ name }) => name}
        width={width}
        height={height - 1}
        empty={data ? 'Nothing is deployed: `n` deploys a model version.' : 'Reading …'}
        onOpen={{ label: 'open', run: ({ name }) => go('deployment', name) }}
        keys={({ name }) => keys(name)}
        always={[{ keys: 'n', label: 'deploy', does: 'deploy', hint: true, run: () => go('deploy') }]}
        columns={[
          { title: 'Name', text: ({ name }) => name },
          { title: 'Serves', width: 24, text: ({ active }) => (active ? modelOf(active.modelVersion) : '–') },
          { title: 'Revision', width: 8, align: 'right', text: ({ active }) => String(active?.number ?? '–') },
          { title: 'Loading', width: 8, from: 60, align: 'right', text: ({ loading }) => String(loading?.number ?? '') },
          { title: 'Since', width: 7, from: 70, text: ({ active }) => age(active?.activatedAt) },
        ]}
      />
    </Box>
  );
}

export function DeploymentScreen({ id }: { id: string }) {
  const { width, height, copy, go } = useFrame();
  const { data } = useData(DeploymentQuery, { id }, refreshMs);
  const keys = useDeploymentKeys();
  const deployment = data?.deployment;
  if (!deployment) return <Text color={theme.muted}>{data ? ' There is no such deployment.' : ' Reading …'}</Text>;
  const { snippet: command } = deployment;
  const snippet = command ? continued(command, width - 2) : [];
  const snippetHeight = height < 16 ? 0 : Math.min(snippet.length + 1, Math.floor(height / 2));
  return (
    <Box flexDirection="column" width={width} height={height}>
      <Text bold wrap="truncate">{` ${padTo(deployment.name, 40).trimEnd()}`}</Text>
      <List
        rows={deployment.revisions}
        keyOf={({ number }) => String(number)}
        width={width}
        height={height - 1 - snippetHeight}
        empty="It has no revision."
        keys={() => keys(deployment.name)}
        always={[
          ...(command ? [{ keys: 'c', label: 'copy the command', hint: true, run: () => copy('The command', command) }] : []),
          { keys: 'h', label: 'history', hint: true, run: () => go('deployment-history', id) },
        ]}
        columns={[
          { title: 'Revision', width: 8, align: 'right', text: ({ number }) => String(number) },
          { title: 'State', width: 12, text: ({ state }) => stateText(state), color: ({ state }) => states[state]?.color },
          { title: 'Model', width: 20, text: ({ modelVersion }) => modelOf(modelVersion) },
          { title: 'Engine', width: 18, from: 110, text: ({ settings }) => settings.engine },
          { title: 'By', width: 10, from: 70, text: ({ createdByName }) => createdByName ?? '' },
          { title: 'Age', width: 7, from: 60, text: ({ createdAt }) => age(createdAt) },
          { title: '', text: ({ reason }) => reason ?? '' },
        ]}
      />
      {snippetHeight > 1 && <Text color={theme.muted}> How a program asks it:</Text>}
      {snippet.slice(0, Math.max(0, snippetHeight - 1)).map((line, i) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: lines of a text.
        <Text key={i} wrap="truncate">{` ${line}`}</Text>
      ))}
    </Box>
  );
}
