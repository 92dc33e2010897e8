/** The audit log: who has done what, newest first. */
import { Box, Text } from 'ink';
import { useState } from 'react';
import { graphql, type ResultOf } from '../graphql.ts';
import { usePages } from '../session/live.tsx';
import { moment, wrap } from '../ui/format.ts';
import { useKeys } from '../ui/keys.tsx';
import { Behind, List } from '../ui/List.tsx';
import { useFrame } from '../ui/nav.tsx';
import { theme } from '../ui/theme.ts';

export const AuditQuery = graphql(`
  query TuiAudit($after: String) {
    auditLog(first: 100, after: $after) {
      nodes { seq at count actor { name } action targetType targetId requestId outcome detail }
      pageInfo { hasNextPage endCursor }
    }
  }
`);

type Entry = ResultOf<typeof AuditQuery>['auditLog']['nodes'][number];

const whoOf = ({ actor }: Entry): string => actor?.name ?? '–';

/** `name=ann role=VIEWER`, without what an object holds further in. */
const detailOf = ({ detail }: Entry): string =>
  Object.entries((detail ?? {}) as Record<string, unknown>)
    .map(([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
    .join(' ');

export function Audit() {
  const { width, height } = useFrame();
  const { rows, isRead, more } = usePages(AuditQuery, {
    pageOf: ({ auditLog }) => auditLog,
    keyOf: ({ seq }) => seq,
    compare: (a, b) => b.seq - a.seq,
    everyMs: 5000,
  });
  const [open, setOpen] = useState<Entry | null>(null);
  return (
    <Behind front={open && <EntryView entry={open} width={width} onClose={() => setOpen(null)} />}>
      <List
        rows={rows}
        isActive={!open}
        keyOf={({ seq }) => String(seq)}
        width={width}
        height={height}
        empty={isRead ? 'The audit log is empty.' : 'Reading …'}
        onOpen={{ label: 'show all of it', run: setOpen }}
        onEnd={more}
        columns={[
          { title: 'When', width: 19, from: 60, text: ({ at }) => moment(at) },
          { title: 'Who', width: 12, text: whoOf },
          { title: 'Action', width: 17, text: ({ action, count }) => `${action}${count > 1 ? ` ×${count}` : ''}` },
          {
            title: 'Outcome',
            width: 7,
            text: ({ outcome }) => outcome,
            color: ({ outcome }) => (outcome === 'DENIED' ? theme.bad : undefined),
          },
          { title: 'Detail', from: 50, text: (entry) => `${entry.targetType ?? ''} ${detailOf(entry)}`.trim() },
        ]}
      />
    </Behind>
  );
}

function EntryView({ entry, width, onClose }: { entry: Entry; width: number; onClose: () => void }) {
  useKeys([{ keys: ['esc', 'enter'], label: 'all entries', hint: true, run: onClose }]);
  const { seq, at, count, action, outcome, targetType, targetId, requestId, detail } = entry;
  const lines = [
    `${action}  ${outcome}${count > 1 ? `  ${count} times` : ''}`,
    `Line ${seq}, ${moment(at)}, by ${whoOf(entry)}`,
    ...(targetType ? [`On ${targetType} ${targetId ?? ''}`] : []),
    ...(requestId ? [`Request ${requestId}`] : []),
    ...(detail ? JSON.stringify(detail, null, 2).split('\n') : []),
  ].flatMap((line) => wrap(line, width - 2));
  return (
    <Box flexDirection="column" paddingX={1}>
      {lines.map((line, i) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: lines of a text.
        <Text key={i} bold={i === 0}>
          {line}
        </Text>
      ))}
    </Box>
  );
}
