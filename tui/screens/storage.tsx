/** What uses the disk of the server, what bounds it, and what the next sweep removes. */
import { Box, Text } from 'ink';
import { graphql, type ResultOf } from '../graphql.ts';
import { useData } from '../session/live.tsx';
import { bytes, moment, printable } from '../ui/format.ts';
import { List } from '../ui/List.tsx';
import { useFrame } from '../ui/nav.tsx';
import { theme } from '../ui/theme.ts';

export const StorageQuery = graphql(`
  query TuiStorage {
    system {
      disk { totalBytes freeBytes }
      storage { name count sizeBytes bound setting days dueCount dueBytes }
      backups { lastAt nextAt problem }
    }
  }
`);

type System = ResultOf<typeof StorageQuery>['system'];
type Row = System['storage'][number];

/** The server measures it every 10 seconds. */
const refreshMs = 10_000;

const boundOf = ({ days, setting, bound }: Row): string =>
  setting ? `${days === null ? 'No age' : `${days} days`} (${setting}). ${bound}` : bound;

function backupLine({ backups }: System): { text: string; color: string | undefined } {
  if (!backups) return { text: 'The server makes no backups by itself: WHETSTONE_BACKUP_FOLDER is not set.', color: theme.muted };
  if (backups.problem !== null) return { text: `Wrong with the last backup: ${backups.problem}`, color: theme.bad };
  return {
    text: `Last backup: ${backups.lastAt ? moment(backups.lastAt) : 'none yet'}. Next: ${moment(backups.nextAt)}.`,
    color: undefined,
  };
}

export function Storage() {
  const { width, height } = useFrame();
  const { data } = useData(StorageQuery, {}, refreshMs);
  const line = data && backupLine(data.system);
  const text = line ? ` ${printable(line.text)}` : ' Measuring …';
  // A problem says what to do: it has as many lines as it needs.
  const lines = Math.min(Math.ceil(text.length / width), height - 2);
  return (
    <Box flexDirection="column">
      <Box height={lines} flexShrink={0} overflow="hidden">
        <Text wrap="hard" color={line?.color}>
          {text}
        </Text>
      </Box>
      <List
        rows={(data?.system.storage ?? []).toSorted((a, b) => b.sizeBytes - a.sizeBytes)}
        keyOf={({ name }) => name}
        width={width}
        height={height - lines}
        empty=""
        columns={[
          { title: 'What', width: 15, text: ({ name }) => name },
          { title: 'Size', width: 10, text: ({ sizeBytes }) => bytes(sizeBytes) },
          { title: 'Count', width: 9, text: (row) => row.count.toLocaleString('en') },
          { title: 'Due', width: 10, text: ({ dueCount, dueBytes }) => (dueCount === 0 ? '' : bytes(dueBytes)) },
          { title: 'Stays', text: boundOf },
        ]}
      />
    </Box>
  );
}
