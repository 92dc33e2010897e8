/**
 * Which key does what. Each part of the screen gives its rows to `useKeys`; they are what the keys do, what the footer hints at and what the
 * help lists, so that these three never differ. A row that the role does not allow is in none of them.
 */
import { type Key, useInput, usePaste } from 'ink';
import { createContext, type ReactNode, useContext, useEffect, useLayoutEffect, useMemo, useReducer, useRef, useState } from 'react';
import { type ActionName, actions, type Permission } from '../actions.ts';

export interface KeyRow {
  /** Names such as `x`, `enter`, `ctrl-d`; all of them do the same. */
  keys: string | string[];
  label: string;
  /** What it changes, or begins to: the role must allow it. Without one it changes nothing, and everybody may. */
  does?: ActionName;
  /** The footer shows it. */
  hint?: boolean;
  run(): void;
}

interface Layer {
  level: number;
  rows: KeyRow[];
  modal: boolean;
  /** Takes text that is no key of the layer. */
  text?: ((text: string) => void) | undefined;
}

interface Keys {
  layers: Set<Layer>;
  permissions: readonly Permission[];
  changed(): void;
}

const KeysContext = createContext<Keys>({ layers: new Set(), permissions: [], changed: () => {} });

/** Layers of a higher level come first. */
export const level = { frame: 0, screen: 1, part: 2, overlay: 3 } as const;

export const keysOf = ({ keys }: KeyRow): string[] => (Array.isArray(keys) ? keys : [keys]);

/** What a key is called in the rows. */
export function nameOf(input: string, key: Key): string {
  if (key.return) return 'enter';
  if (key.escape) return 'esc';
  if (key.tab) return key.shift ? 'shift-tab' : 'tab';
  if (key.backspace || key.delete) return 'backspace';
  const moves = { up: key.upArrow, down: key.downArrow, left: key.leftArrow, right: key.rightArrow };
  const pages = { pageup: key.pageUp, pagedown: key.pageDown, home: key.home, end: key.end };
  const special = Object.entries({ ...moves, ...pages }).find(([, pressed]) => pressed);
  if (special) return special[0];
  if (key.ctrl) return `ctrl-${input}`;
  if (key.meta) return `meta-${input}`;
  return input === ' ' ? 'space' : input;
}

interface Press {
  name: string;
  /** What it types; empty for other keys. */
  text: string;
}

/** Control characters inside of a piece of input. */
function controlOf(character: string): string | undefined {
  const code = character.charCodeAt(0);
  const named: Record<number, string> = { 9: 'tab', 10: 'enter', 13: 'enter', 27: 'esc', 127: 'backspace' };
  return named[code] ?? (code < 27 ? `ctrl-${String.fromCharCode(code + 96)}` : undefined);
}

/** What is typed fast arrives in one piece, such as `ada` and Enter. */
function pressesOf(input: string, key: Key): Press[] {
  const name = nameOf(input, key);
  if (key.ctrl || key.meta || input.length <= 1) return [{ name, text: name === input || name === 'space' ? input : '' }];
  return [...input].map((character) => {
    const control = controlOf(character);
    return control ? { name: control, text: '' } : { name: character === ' ' ? 'space' : character, text: character };
  });
}

export function KeysProvider({ permissions, children }: { permissions: readonly Permission[]; children: ReactNode }) {
  const layers = useRef(new Set<Layer>()).current;
  const [version, changed] = useReducer((n: number) => n + 1, 0);
  const press = ({ name, text }: Press) => {
    for (const layer of byLevel(layers)) {
      const row = layer.rows.find((candidate) => isAllowed(candidate, permissions) && keysOf(candidate).includes(name));
      if (row) return row.run();
      if (layer.text && text !== '') return layer.text(text);
      if (layer.modal) return;
    }
  };
  // One key after the other, each when the screen has become what the one before made of it. A single one needs no frame before its own.
  const [pending, setPending] = useState<Press[]>([]);
  const isIdle = useRef(true);
  // biome-ignore lint/correctness/useExhaustiveDependencies: `press` reads the layers as they are now.
  useEffect(() => {
    const [first] = pending;
    isIdle.current = !first;
    if (!first) return;
    press(first);
    setPending((presses) => presses.slice(1));
  }, [pending]);
  const enqueue = (presses: Press[]) => {
    const [first] = presses;
    if (!isIdle.current || presses.length > 1 || !first) return setPending((before) => [...before, ...presses]);
    isIdle.current = false;
    press(first);
    setPending([]);
  };
  useInput((input, key) => enqueue(pressesOf(input, key)));
  usePaste((text) => enqueue([{ name: '', text: text.replace(/\p{Cc}+/gu, ' ').trim() }]));
  // biome-ignore lint/correctness/useExhaustiveDependencies: a new object tells its users that the rows have changed.
  const value = useMemo(() => ({ layers, permissions, changed }), [layers, permissions, version]);
  return <KeysContext.Provider value={value}>{children}</KeysContext.Provider>;
}

const byLevel = (layers: Set<Layer>): Layer[] => [...layers].sort((a, b) => b.level - a.level);

const isAllowed = ({ does }: KeyRow, permissions: readonly Permission[]): boolean => !does || permissions.includes(actions[does].needs);

/** Gives the rows to the keyboard while the component is there. With `modal` nothing below gets a key. */
export function useKeys(rows: KeyRow[], options: { level?: number; modal?: boolean; text?: (text: string) => void } = {}): void {
  const { layers, changed } = useContext(KeysContext);
  const layer = useRef<Layer>({ level: 0, rows: [], modal: false }).current;
  layer.level = options.level ?? level.screen;
  layer.modal = options.modal ?? false;
  layer.text = options.text;
  layer.rows = rows;
  useEffect(() => {
    layers.add(layer);
    return () => {
      layers.delete(layer);
    };
  }, [layers, layer]);
  const shown = rows.map((row) => `${keysOf(row)} ${row.label} ${row.hint}`).join('\n');
  // Not after the frame: a footer must not name keys of the row that was left.
  // biome-ignore lint/correctness/useExhaustiveDependencies: tells the footer when the rows are others.
  useLayoutEffect(() => {
    changed();
    return changed;
  }, [shown, layer.modal]);
}

/** The rows that count now, those that come first before the others. */
export function useActiveRows(): KeyRow[] {
  const { layers, permissions } = useContext(KeysContext);
  const rows: KeyRow[] = [];
  for (const layer of byLevel(layers)) {
    rows.push(...layer.rows.filter((row) => isAllowed(row, permissions)));
    if (layer.modal) break;
  }
  return rows;
}

export const useMay = (): ((permission: Permission) => boolean) => {
  const { permissions } = useContext(KeysContext);
  return (permission) => permissions.includes(permission);
};
