/** A monitor of what the server sends: rates and ages of the subscriptions, and how often the connection was lost. */
import { Box, Text } from 'ink';
import { useEffect, useReducer, useRef } from 'react';
import { graphql } from '../graphql.ts';
import { useConnection, useLink, useLive } from '../session/live.tsx';
import { clock, duration, number, padTo, printable } from '../ui/format.ts';
import { useFrame } from '../ui/nav.tsx';
import { sparkline } from '../ui/plot.ts';
import { states, theme } from '../ui/theme.ts';

const ChangesSubscription = graphql(`
  subscription TuiChanges { jobs { id kind state createdByName regressions { says } } }
`);

interface Change {
  at: string;
  id: string;
  kind: string;
  state: string;
  createdByName: string | null;
  regressions: readonly { says: string }[];
}

export function Events() {
  const { width, height } = useFrame();
  const { traffic } = useConnection();
  const link = useLink();
  const changes = useRef<Change[]>([]);
  const seconds = useRef<number[]>([]);
  const before = useRef(traffic.received);
  const [, tick] = useReducer((n: number) => n + 1, 0);
  useEffect(() => {
    const timer = setInterval(() => {
      seconds.current = [...seconds.current, traffic.received - before.current].slice(-120);
      before.current = traffic.received;
      tick();
    }, 1000);
    return () => clearInterval(timer);
  }, [traffic]);
  useLive(ChangesSubscription, {}, (items) => {
    const at = new Date().toISOString();
    changes.current = [...changes.current, ...items.map(({ jobs }) => ({ ...jobs, at }))].slice(-500);
    tick();
  });
  const open = [...traffic.open];
  const room = Math.max(0, height - open.length - 5);
  return (
    <Box flexDirection="column" width={width} height={height}>
      <Text wrap="truncate">
        {` ${link.state.toLowerCase()}  ${traffic.received} items  ${number(seconds.current.at(-1) ?? 0)}/s  ${traffic.reconnects} reconnects  `}
        <Text color={theme.accent}>{sparkline(seconds.current, Math.max(0, width - 60))}</Text>
      </Text>
      <Text> </Text>
      <Text color={theme.muted}>{` ${padTo('Subscription', 20)} ${padTo('items', 9, 'right')} ${padTo('last', 10, 'right')}`}</Text>
      {open.map(([name, { received, lastAt }]) => (
        <Text key={name} wrap="truncate">
          {` ${padTo(name.replace(/^Tui/, ''), 20)} ${padTo(String(received), 9, 'right')} ${padTo(lastAt === 0 ? '–' : duration(Date.now() - lastAt), 10, 'right')}`}
        </Text>
      ))}
      <Text> </Text>
      <Text color={theme.muted}> Changes of jobs</Text>
      {changes.current.slice(-room).map(({ at, id, kind, state, createdByName, regressions }, i) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: one job changes several times.
        <Text key={`${id} ${at} ${i}`} wrap="truncate" color={regressions.length > 0 ? theme.warn : states[state]?.color}>
          {` ${clock(at)}  ${padTo(kind, 14)} ${padTo(state, 11)} ${createdByName ?? ''}${regressions.map(({ says }) => `  ! ${printable(says)}`).join('')}`}
        </Text>
      ))}
    </Box>
  );
}
