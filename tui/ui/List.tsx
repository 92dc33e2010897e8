/** A table that scrolls. Its cursor stays on its row when others come or go above it. Only what is visible is rendered. */
import { Box, Text } from 'ink';
import { type ReactNode, useEffect, useState } from 'react';
import { padTo, printable } from './format.ts';
import { type KeyRow, level, useKeys } from './keys.tsx';
import { useFrame } from './nav.tsx';
import { theme } from './theme.ts';

export interface Column<Row> {
  title: string;
  /** Cells; the column without one takes what is left. */
  width?: number;
  align?: 'right';
  /** Left out below this width of the list. */
  from?: number;
  text(row: Row): string;
  color?(row: Row): string | undefined;
}

interface Props<Row> {
  rows: readonly Row[];
  columns: Column<Row>[];
  keyOf(row: Row): string;
  width: number;
  height: number;
  /** What stands there without rows. */
  empty: string;
  onOpen?: { label: string; run(row: NoInfer<Row>): void };
  /** Keys that concern the row under the cursor. */
  keys?(row: NoInfer<Row>): KeyRow[];
  /** Keys that concern no row. */
  always?: KeyRow[];
  /** Called with the row under the cursor. */
  onCursor?: (row: NoInfer<Row> | null) => void;
  /** Called when the cursor comes near the end. */
  onEnd?: () => void;
  isActive?: boolean;
}

export function List<Row>(props: Props<Row>) {
  const { rows, columns, keyOf, width, height, empty, onOpen, keys, always = [], onCursor, onEnd, isActive = true } = props;
  const { filter } = useFrame();
  const shownColumns = columns.filter(({ from = 0 }) => width >= from);
  const matching = filter === '' ? rows : rows.filter((row) => matches(shownColumns, row, filter));
  const [cursorKey, setCursorKey] = useState<string | null>(null);
  const [lastIndex, setLastIndex] = useState(0);
  const found = cursorKey === null ? -1 : matching.findIndex((row) => keyOf(row) === cursorKey);
  // A row that has gone leaves the cursor at its place.
  const cursor = Math.max(0, Math.min(matching.length - 1, found === -1 ? lastIndex : found));
  const visible = Math.max(1, height - 1);
  const [top, setTop] = useState(0);
  const first = Math.max(0, Math.min(Math.max(top, cursor - visible + 1), cursor, Math.max(0, matching.length - visible)));

  const move = (to: number) => {
    const index = Math.max(0, Math.min(matching.length - 1, to));
    const row = matching[index];
    if (row === undefined) return;
    setCursorKey(keyOf(row));
    setLastIndex(index);
    setTop(Math.max(0, Math.min(Math.max(first, index - visible + 1), index)));
  };
  const nearEnd = cursor >= matching.length - visible;
  // Also when a page has come that leaves the end near, as under a filter that few rows match.
  // biome-ignore lint/correctness/useExhaustiveDependencies: see above.
  useEffect(() => {
    if (nearEnd) onEnd?.();
  }, [nearEnd, onEnd, rows.length]);

  const selected = matching[cursor];
  const selectedKey = selected === undefined ? null : keyOf(selected);
  // biome-ignore lint/correctness/useExhaustiveDependencies: another row, not another object for the same one.
  useEffect(() => onCursor?.(selected ?? null), [selectedKey]);
  const moves: KeyRow[] = [
    { keys: ['j', 'down'], label: 'next row', run: () => move(cursor + 1) },
    { keys: ['k', 'up'], label: 'previous row', run: () => move(cursor - 1) },
    { keys: ['g', 'home'], label: 'first row', run: () => move(0) },
    { keys: ['G', 'end'], label: 'last row', run: () => move(matching.length - 1) },
    { keys: ['ctrl-d', 'pagedown'], label: 'half a page down', run: () => move(cursor + Math.ceil(visible / 2)) },
    { keys: ['ctrl-u', 'pageup'], label: 'half a page up', run: () => move(cursor - Math.ceil(visible / 2)) },
  ];
  const open: KeyRow[] =
    selected !== undefined && onOpen ? [{ keys: 'enter', label: onOpen.label, hint: true, run: () => onOpen.run(selected) }] : [];
  useKeys(isActive ? [...open, ...(selected === undefined ? [] : (keys?.(selected) ?? [])), ...always, ...moves] : [], {
    level: level.part,
  });

  const fixed = shownColumns.reduce((sum, column) => sum + (column.width === undefined ? 0 : column.width + 1), 2);
  const grow = Math.max(
    4,
    Math.floor((width - fixed) / Math.max(1, shownColumns.filter((column) => column.width === undefined).length)) - 1,
  );
  const cell = (column: Column<Row>, text: string) => padTo(text, column.width ?? grow, column.align);
  return (
    <Box flexDirection="column" width={width} height={height}>
      <Text color={theme.muted} wrap="truncate">
        {`  ${shownColumns.map((column) => cell(column, column.title)).join(' ')}`}
      </Text>
      {matching.length === 0 && (
        <Text color={theme.muted}>{filter === '' ? `  ${empty}` : `  Nothing matches “${printable(filter)}”.`}</Text>
      )}
      {matching.slice(first, first + visible).map((row, i) => {
        const isCursor = first + i === cursor && isActive;
        return (
          <Text key={keyOf(row)} wrap="truncate" inverse={isCursor} bold={isCursor}>
            {isCursor ? '› ' : '  '}
            {joined(shownColumns.map((column) => ({ text: `${cell(column, column.text(row))} `, color: column.color?.(row) }))).map(
              ({ text, color }, n) => (
                // biome-ignore lint/suspicious/noArrayIndexKey: a piece of a row is its place.
                <Text key={n} color={color}>
                  {text}
                </Text>
              ),
            )}
          </Text>
        );
      })}
    </Box>
  );
}

interface Piece {
  text: string;
  color: string | undefined;
}

/** Neighbours of one colour are one piece: each piece takes time to draw. */
function joined(pieces: readonly Piece[]): Piece[] {
  const found: Piece[] = [];
  for (const piece of pieces) {
    const last = found.at(-1);
    if (last && last.color === piece.color) last.text += piece.text;
    else found.push(piece);
  }
  return found;
}

/** A list with something in front of it, such as a form about its row: behind that it keeps its cursor. */
export function Behind({ front, children }: { front: ReactNode; children: ReactNode }) {
  return (
    <>
      {front}
      <Box display={front ? 'none' : 'flex'} flexDirection="column">
        {children}
      </Box>
    </>
  );
}

const matches = <Row,>(columns: Column<Row>[], row: Row, filter: string): boolean =>
  columns.some(({ text }) => text(row).toLowerCase().includes(filter.toLowerCase()));
