/** Pictures of a dataset version, page by page. */
import { Box, Text } from 'ink';
import { useEffect, useState } from 'react';
import { graphql, type ResultOf } from '../graphql.ts';
import { useConnection, useData } from '../session/live.tsx';
import { padTo, printable } from '../ui/format.ts';
import { useKeys } from '../ui/keys.tsx';
import { useFrame } from '../ui/nav.tsx';
import { PictureView } from '../ui/PictureView.tsx';
import { colourDepth, theme } from '../ui/theme.ts';

export const PicturesQuery = graphql(`
  query TuiPictures($id: ID!, $first: Int! = 20, $after: String, $class: String) {
    node(id: $id) {
      ... on DatasetVersion {
        number
        dataset { name }
        classes(first: 100) { name }
        items(first: $first, after: $after, class: $class) {
          nodes { id split class boxCount path width height thumbnailUrl }
          pageInfo { hasNextPage endCursor }
        }
      }
    }
  }
`);

type Version = Extract<NonNullable<ResultOf<typeof PicturesQuery>['node']>, { items: unknown }>;
type Item = Version['items']['nodes'][number];

/** Cells of a picture with its caption; a thumbnail has at most 96 × 96 pixels. */
const tile = { width: 20, height: 10 };

export function Pictures({ id }: { id: string }) {
  const { width, height } = useFrame();
  const [pages, setPages] = useState<readonly (string | null)[]>([null]);
  const [classAt, setClassAt] = useState(0);
  const [classes, setClasses] = useState<readonly string[]>([]);
  const isDrawn = colourDepth !== 'NONE';
  const across = Math.max(1, Math.floor(width / tile.width));
  const down = Math.max(1, Math.floor((height - 1) / tile.height));
  const first = Math.min(50, isDrawn ? across * down : Math.max(1, height - 1));
  const wanted = classes[classAt - 1] ?? null;
  const { data } = useData(PicturesQuery, { id, first, after: pages.at(-1) ?? null, class: wanted });
  const version = data?.node as Version | null | undefined;
  const { hasNextPage, endCursor } = version?.items.pageInfo ?? { hasNextPage: false, endCursor: null };
  useEffect(() => {
    if (version) setClasses(version.classes.map(({ name }) => name));
  }, [version]);
  useKeys([
    ...(hasNextPage
      ? [{ keys: ['j', 'down', 'right', 'ctrl-d'], label: 'further', hint: true, run: () => setPages([...pages, endCursor]) }]
      : []),
    ...(pages.length > 1
      ? [{ keys: ['k', 'up', 'left', 'ctrl-u'], label: 'back', hint: true, run: () => setPages(pages.slice(0, -1)) }]
      : []),
    {
      keys: 'c',
      label: 'next class',
      hint: true,
      run: () => {
        setClassAt((classAt + 1) % (classes.length + 1));
        setPages([null]);
      },
    },
  ]);
  if (!version) return <Text color={theme.muted}>{data ? ' There is no such dataset version.' : ' Reading …'}</Text>;
  return (
    <Box flexDirection="column" width={width} height={height}>
      <Text bold wrap="truncate">
        {` ${printable(version.dataset.name)} v${version.number}  ${wanted === null ? 'all classes' : printable(wanted)}  page ${pages.length}`}
      </Text>
      {version.items.nodes.length === 0 && <Text color={theme.muted}> There is no such picture.</Text>}
      {isDrawn ? (
        <Box flexWrap="wrap" width={across * tile.width}>
          {version.items.nodes.map((item) => (
            <Tile key={item.id} item={item} />
          ))}
        </Box>
      ) : (
        version.items.nodes.map((item) => (
          <Text key={item.id} wrap="truncate">
            {` ${padTo(item.split.toLowerCase(), 5)} ${padTo(about(item), 16)} ${item.width} × ${item.height}  ${printable(item.path)}`}
          </Text>
        ))
      )}
    </Box>
  );
}

const about = ({ class: name, boxCount }: Item): string => name ?? `${boxCount} boxes`;

function Tile({ item }: { item: Item }) {
  const { session } = useConnection();
  const [image, setImage] = useState<Uint8Array | null>(null);
  const url = item.thumbnailUrl;
  useEffect(() => {
    if (!url) return;
    const end = new AbortController();
    fetch(new URL(url, session.url), { signal: end.signal })
      .then(async (answer) => answer.ok && setImage(new Uint8Array(await answer.arrayBuffer())))
      // Without the picture its caption stays.
      .catch(() => {});
    return () => end.abort();
  }, [url, session]);
  return (
    <Box flexDirection="column" width={tile.width} height={tile.height}>
      {image ? <PictureView image={image} width={tile.width - 1} height={tile.height - 1} /> : <Box height={tile.height - 1} />}
      <Text wrap="truncate">{padTo(`${about(item)}, ${item.split.toLowerCase()}`, tile.width - 1)}</Text>
    </Box>
  );
}
