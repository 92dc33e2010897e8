/** Datasets, and one with its versions and classes. */
import { Box, Text } from 'ink';
import { graphql } from '../graphql.ts';
import { useData } from '../session/live.tsx';
import { age, bytes, number, padTo, printable, widest } from '../ui/format.ts';
import { List } from '../ui/List.tsx';
import { useFrame } from '../ui/nav.tsx';
import { states, theme } from '../ui/theme.ts';

export const DatasetsQuery = graphql(`
  query TuiDatasets {
    datasets(first: 100) {
      nodes { name task createdAt version { id number state sizeBytes counts { total } } }
    }
  }
`);

export const DatasetQuery = graphql(`
  query TuiDataset($id: String!) {
    dataset(name: $id) {
      name task notes
      version {
        counts { train val test total }
        duplicatesAcrossSplits
        classes(first: 100) { index name counts { train val test total } }
      }
      versions(first: 20) { nodes { id number state createdAt sizeBytes counts { train val test total } job { id state failure { message } } } }
    }
  }
`);

/** While something is imported, the lists are read again this often. */
export const refreshMs = 3000;

export function Datasets() {
  const { width, height, go } = useFrame();
  const { data } = useData(DatasetsQuery, {}, refreshMs);
  return (
    <List
      rows={data?.datasets.nodes ?? []}
      keyOf={({ name }) => name}
      width={width}
      height={height}
      empty={data ? 'There is no dataset yet: `u` uploads a zip.' : 'Reading …'}
      onOpen={{ label: 'open', run: ({ name }) => go('dataset', name) }}
      always={[{ keys: 'u', label: 'upload', does: 'createDataset', hint: true, run: () => go('upload-dataset') }]}
      columns={[
        { title: 'Name', text: ({ name }) => name },
        { title: 'Task', width: 14, from: 60, text: ({ task }) => task },
        { title: 'Version', width: 7, align: 'right', text: ({ version }) => String(version?.number ?? '–') },
        {
          title: 'State',
          width: 12,
          text: ({ version }) => stateText(version?.state),
          color: ({ version }) => states[version?.state ?? '']?.color,
        },
        { title: 'Images', width: 9, align: 'right', text: ({ version }) => number(version?.counts?.total) },
        { title: 'Size', width: 9, from: 70, align: 'right', text: ({ version }) => bytes(version?.sizeBytes) },
      ]}
    />
  );
}

export const stateText = (state: string | undefined): string => (state ? `${states[state]?.sign ?? ''} ${state}` : '–');

export function DatasetScreen({ id }: { id: string }) {
  const { width, height, go } = useFrame();
  const { data } = useData(DatasetQuery, { id }, refreshMs);
  const dataset = data?.dataset;
  if (!dataset) return <Text color={theme.muted}>{data ? ' There is no such dataset.' : ' Reading …'}</Text>;
  const { version, versions } = dataset;
  const classes = version?.classes ?? [];
  const most = Math.max(1, ...classes.map(({ counts }) => counts.total));
  const listHeight = Math.min(versions.nodes.length + 1, Math.max(3, Math.floor(height / 2)));
  const room = height - listHeight - 2;
  // The longest name whole, where a bar has room beside it.
  const nameWidth = widest(
    classes.map(({ name }) => name),
    12,
    width - 40,
  );
  const barWidth = Math.max(4, width - nameWidth - 30);
  return (
    <Box flexDirection="column" width={width} height={height}>
      <Text bold wrap="truncate">{` ${printable(dataset.name)}  ${dataset.task}  ${printable(dataset.notes)}`}</Text>
      <List
        rows={versions.nodes}
        keyOf={(row) => row.id}
        width={width}
        height={listHeight}
        empty="It has no version."
        onOpen={{ label: 'open its import', run: ({ job }) => job && go('job', job.id) }}
        keys={({ id: versionId, state }) =>
          state === 'READY'
            ? [
                { keys: 'v', label: 'pictures', hint: true, run: () => go('pictures', versionId) },
                { keys: 'n', label: 'train on it', does: 'startTraining', hint: true, run: () => go('train') },
              ]
            : []
        }
        columns={[
          { title: 'Version', width: 7, align: 'right', text: (row) => String(row.number) },
          { title: 'State', width: 12, text: ({ state }) => stateText(state), color: ({ state }) => states[state]?.color },
          { title: 'Train', width: 7, align: 'right', text: ({ counts }) => number(counts?.train) },
          { title: 'Val', width: 6, align: 'right', text: ({ counts }) => number(counts?.val) },
          { title: 'Test', width: 6, from: 60, align: 'right', text: ({ counts }) => number(counts?.test) },
          { title: 'Age', width: 7, from: 60, text: ({ createdAt }) => age(createdAt) },
          { title: '', text: ({ job }) => job?.failure?.message ?? '' },
        ]}
      />
      <Text color={theme.muted} wrap="truncate">
        {` ${padTo('Class', nameWidth)} ${padTo('train', 7, 'right')} ${padTo('val', 6, 'right')} ${padTo('test', 6, 'right')}${version?.duplicatesAcrossSplits ? `   ! ${version.duplicatesAcrossSplits} images are in several splits` : ''}`}
      </Text>
      {classes.slice(0, room).map(({ index, name, counts }) => (
        <Text key={index} wrap="truncate">
          {` ${padTo(name, nameWidth)} ${padTo(String(counts.train), 7, 'right')} ${padTo(String(counts.val), 6, 'right')} ${padTo(String(counts.test), 6, 'right')} `}
          <Text color={theme.accent}>{'█'.repeat(Math.round((counts.total / most) * barWidth))}</Text>
        </Text>
      ))}
    </Box>
  );
}
