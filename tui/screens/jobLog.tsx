/** The log of a job: its tail while it grows, any part of it when scrolled. */
import { Box, Text } from 'ink';
import { useState } from 'react';
import { graphql, type ResultOf } from '../graphql.ts';
import { useLive } from '../session/live.tsx';
import { clock, padTo, printable } from '../ui/format.ts';
import { level, useKeys } from '../ui/keys.tsx';
import { useFrame } from '../ui/nav.tsx';
import { theme } from '../ui/theme.ts';

const LogSubscription = graphql(`
  subscription TuiJobLogs($id: ID!, $after: SafeInt!) {
    jobLogs(id: $id, after: $after) { n at attempt stream text }
  }
`);

type Line = ResultOf<typeof LogSubscription>['jobLogs'];

/** Lines that stay in memory. */
const linesMax = 20_000;

export function JobLog({ id, width, height, onClose }: { id: string; width: number; height: number; onClose: () => void }) {
  const { filter } = useFrame();
  const [lines, setLines] = useState<Line[]>([]);
  /** The first visible line; null follows the end. */
  const [top, setTop] = useState<number | null>(null);
  useLive(LogSubscription, { id, after: 0 }, (items) =>
    setLines((before) => before.concat(items.map(({ jobLogs }) => jobLogs)).slice(-linesMax)),
  );
  const matching = filter === '' ? lines : lines.filter(({ text }) => text.toLowerCase().includes(filter.toLowerCase()));
  const room = height - 1;
  const most = Math.max(0, matching.length - room);
  const first = top === null ? most : Math.min(top, most);
  const scroll = (by: number) => setTop(first + by >= most ? null : Math.max(0, first + by));
  useKeys(
    [
      { keys: ['l', 'esc'], label: 'back to the job', hint: true, run: onClose },
      { keys: ['j', 'down'], label: 'a line down', run: () => scroll(1) },
      { keys: ['k', 'up'], label: 'a line up', run: () => scroll(-1) },
      { keys: ['ctrl-d', 'pagedown'], label: 'half a page down', run: () => scroll(Math.ceil(room / 2)) },
      { keys: ['ctrl-u', 'pageup'], label: 'half a page up', hint: true, run: () => scroll(-Math.ceil(room / 2)) },
      { keys: ['g', 'home'], label: 'beginning', run: () => setTop(0) },
      { keys: ['G', 'end'], label: 'end, and follow', hint: true, run: () => setTop(null) },
      { keys: 'space', label: top === null ? 'pause' : 'follow', run: () => setTop(top === null ? most : null) },
    ],
    { level: level.part },
  );
  return (
    <Box flexDirection="column" width={width} height={height}>
      <Text bold>
        {' Log'}
        <Text color={theme.muted}>{`  ${matching.length} lines${top === null ? ', following' : `, at ${first + 1}`}`}</Text>
      </Text>
      {matching.slice(first, first + room).map(({ n, at, stream, text }) => (
        <Text key={n} wrap="truncate" color={stream === 'stderr' ? theme.warn : undefined}>
          {width >= 60 ? ` ${clock(at)} ${padTo(text, width - 11).trimEnd()}` : ` ${printable(text)}`}
        </Text>
      ))}
      {lines.length === 0 && <Text color={theme.muted}> No lines yet.</Text>}
    </Box>
  );
}
