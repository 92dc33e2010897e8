/** The frame of every screen: who and where, the state of the connection, the screens, the keys. */
import { Box, Text, useApp, useStdout } from 'ink';
import { useEffect, useMemo, useReducer, useState } from 'react';
import { permissionFor, type Screen, screens } from '../screens/screens.ts';
import { useConnection, useLink, useLive } from '../session/live.tsx';
import type { Session } from '../session/session.ts';
import { padTo, printable } from './format.ts';
import { keysOf, level, useActiveRows, useKeys, useMay } from './keys.tsx';
import { type Frame, FrameContext, type Route } from './nav.tsx';
import { SystemContext, type SystemNow, SystemSubscription } from './system.ts';
import { theme } from './theme.ts';

/** Seconds of the machine's history that are kept. */
const historyLength = 120;
/** A message in the footer stays this long. */
const messageMs = 8000;
/** Below this many lines the row of screens gives its place to the screen. */
const rowsForTabs = 16;

interface Props {
  session: Session;
  viewer: { name: string; role: string };
  columns: number;
  rows: number;
  first: Route;
  /** Takes what is printed when the UI has closed. */
  leave(text: string): void;
}

type Overlay = { kind: 'none' | 'help' | 'palette' } | { kind: 'confirm'; question: string; run: () => void };

const routeOf = (screen: string, id: string | undefined): Route => (id === undefined ? { screen } : { screen, id });

export function Shell({ session, viewer, columns, rows, first, leave }: Props) {
  const { exit } = useApp();
  const { stdout } = useStdout();
  const may = useMay();
  const [stack, setStack] = useState<Route[]>([first]);
  const [overlay, setOverlay] = useState<Overlay>({ kind: 'none' });
  const [filter, setFilter] = useState('');
  const [typing, setTyping] = useState(false);
  const [message, setMessage] = useState<{ text: string; kind: 'good' | 'bad' } | null>(null);
  const [marked, setMarked] = useState<readonly string[]>([]);
  const [history, setHistory] = useState<SystemNow[]>([]);
  useLive(SystemSubscription, {}, (items) =>
    setHistory((before) => [...before, ...items.map(({ system }) => system)].slice(-historyLength)),
  );

  useEffect(() => {
    const timer = message && setTimeout(() => setMessage(null), messageMs);
    return () => clearTimeout(timer ?? undefined);
  }, [message]);

  const offered = screens.filter((row) => may(permissionFor(row)));
  const listed = offered.filter(({ from }) => from === 'LISTED');
  const route = stack.at(-1) as Route;
  const screen = offered.find(({ name }) => name === route.screen) ?? (listed[0] as Screen);
  const tabs = rows >= rowsForTabs;
  /** Of the row of screens: the one that this was opened from. */
  const active =
    stack.map((one) => listed.findIndex(({ name }) => name === one.screen)).findLast((at) => at !== -1) ?? listed.indexOf(screen);
  const open = (next: Route[]) => {
    setStack(next);
    setFilter('');
    setTyping(false);
    setMessage(null);
    setOverlay({ kind: 'none' });
  };
  const width = columns;
  const height = rows - (tabs ? 3 : 2);
  // biome-ignore lint/correctness/useExhaustiveDependencies: `open` only sets state.
  const frame = useMemo<Frame>(
    () => ({
      route,
      width,
      height,
      filter,
      go: (name, id) => open([...stack, routeOf(name, id)]),
      replace: (name, id) => open([...stack.slice(0, -1), routeOf(name, id)]),
      // A start on a form or on one row has nothing behind it.
      back: () => open(stack.length > 1 ? stack.slice(0, -1) : screen.from === 'LISTED' ? stack : [{ screen: 'overview' }]),
      marked,
      mark: (id) => setMarked((before) => (before.includes(id) ? before.filter((other) => other !== id) : [...before, id])),
      confirm: (question, run) => setOverlay({ kind: 'confirm', question, run }),
      say: (text, kind = 'good') => setMessage({ text, kind }),
      copy: (what, text, kind) => {
        // OSC 52: over SSH it reaches the clipboard of the machine that the terminal is on.
        stdout.write(`\x1b]52;c;${Buffer.from(text).toString('base64')}\x07`);
        if (kind !== 'secret') leave(printable(text));
        const later = kind === 'secret' ? '' : ', and printed when you quit';
        setMessage({ text: `${what} is copied if your terminal allows it${later}.`, kind: 'good' });
      },
    }),
    [route, width, height, filter, stack, screen, marked],
  );
  const cycle = (step: number) => {
    open([{ screen: (listed[(active + step + listed.length) % listed.length] as Screen).name }]);
  };

  useKeys(
    [
      { keys: 'esc', label: filter ? 'show all rows again' : 'back', run: () => (filter ? setFilter('') : frame.back()) },
      ...(screen.filters ? [{ keys: '/', label: 'filter the rows', hint: true, run: () => setTyping(true) }] : []),
      { keys: ':', label: 'go to a screen by name', hint: true, run: () => setOverlay({ kind: 'palette' }) },
      { keys: '?', label: 'help', hint: true, run: () => setOverlay({ kind: 'help' }) },
      ...listed.slice(0, 9).map(({ title, name }, i) => ({ keys: String(i + 1), label: title, run: () => open([{ screen: name }]) })),
      { keys: 'tab', label: 'next screen', run: () => cycle(1) },
      { keys: 'shift-tab', label: 'previous screen', run: () => cycle(-1) },
      { keys: 'q', label: 'quit', run: () => exit() },
    ],
    { level: level.frame },
  );
  useKeys(
    typing
      ? [
          { keys: ['enter', 'down'], label: 'use the filter', hint: true, run: () => setTyping(false) },
          { keys: 'backspace', label: 'delete', run: () => setFilter((text) => text.slice(0, -1)) },
          {
            keys: 'esc',
            label: 'show all rows',
            hint: true,
            run: () => {
              setFilter('');
              setTyping(false);
            },
          },
        ]
      : [],
    typing ? { level: level.overlay, modal: true, text: (typed) => setFilter((text) => text + typed) } : { level: level.frame },
  );

  const Content = screen.component;
  return (
    <SystemContext.Provider value={history}>
      <FrameContext.Provider value={frame}>
        <Box flexDirection="column" width={columns} height={rows}>
          <Header session={session} viewer={viewer} system={history.at(-1)} width={columns} title={tabs ? 'Whetstone' : screen.title} />
          {tabs && <Tabs listed={listed} active={active} width={columns} />}
          <Box height={height} width={width} flexDirection="column" overflow="hidden">
            <Box display={overlay.kind === 'none' ? 'flex' : 'none'} flexDirection="column" height={height} width={width}>
              <Content key={`${route.screen} ${route.id ?? ''}`} id={route.id ?? ''} />
            </Box>
            {overlay.kind === 'help' && <Help width={width} height={height} onClose={() => setOverlay({ kind: 'none' })} />}
            {overlay.kind === 'palette' && (
              <Palette
                height={height}
                entries={[
                  ...offered
                    .filter(({ from }) => from !== 'ROW')
                    .map(({ name, title, from }) => ({
                      name,
                      title,
                      run: () => open([...(from === 'LISTED' ? [] : stack), { screen: name }]),
                    })),
                  { name: 'logout', title: 'Log out', run: () => void session.logout() },
                  { name: 'quit', title: 'Quit', run: () => exit() },
                ]}
                onClose={() => setOverlay({ kind: 'none' })}
              />
            )}
            {overlay.kind === 'confirm' && (
              <Confirm
                question={overlay.question}
                onAnswer={(yes) => {
                  setOverlay({ kind: 'none' });
                  if (yes) overlay.run();
                }}
              />
            )}
          </Box>
          <Footer message={message} filter={filter} typing={typing} width={columns} />
        </Box>
      </FrameContext.Provider>
    </SystemContext.Provider>
  );
}

function Header({
  session,
  viewer,
  system,
  width,
  title,
}: {
  session: Session;
  viewer: Props['viewer'];
  system: SystemNow | undefined;
  width: number;
  title: string;
}) {
  const link = useLink();
  const connection = useConnection();
  const [now, setNow] = useReducer(() => Date.now(), Date.now());
  const isLost = link.state === 'LOST';
  useEffect(() => {
    if (!isLost) return;
    setNow();
    const timer = setInterval(setNow, 500);
    return () => clearInterval(timer);
  }, [isLost]);
  useKeys(isLost ? [{ keys: 'R', label: 'connect now', hint: true, run: () => connection.retryNow() }] : [], { level: level.part });
  const seconds = isLost ? Math.max(0, Math.ceil((link.retryAt - now) / 1000)) : 0;
  const [sign, color] = {
    CONNECTED: ['● connected', theme.good],
    CONNECTING: ['○ connecting', theme.warn],
    LOST: [seconds > 0 ? `✗ reconnecting in ${seconds} s` : '✗ reconnecting', theme.bad],
  }[link.state] as [string, string | undefined];
  const left = ` ${title}  ${session.url.replace(/^https?:\/\//, '')}  ${printable(viewer.name)} (${viewer.role.toLowerCase()})`;
  const taken = system?.slots.filter(({ job }) => job).length ?? 0;
  const load = system ? `slots ${taken}/${system.slots.length}  queue ${system.queuedJobs}  ` : '';
  const right = `${width >= 70 ? load : ''}${sign} `;
  return (
    <Text wrap="truncate">
      <Text bold>{padTo(left, Math.max(0, width - right.length))}</Text>
      <Text color={theme.muted}>{right.slice(0, right.length - sign.length - 1)}</Text>
      <Text color={color} bold={link.state !== 'CONNECTED'}>{`${sign} `}</Text>
    </Text>
  );
}

/** The screens with their numbers; where even the short names do not fit, the name of the current one alone. */
function Tabs({ listed, active, width }: { listed: Screen[]; active: number; width: number }) {
  const titles = listed.map(({ title }) => title);
  const short = listed.map(({ short, title }) => short ?? title);
  const only = titles.map((title, i) => (i === active ? title : ''));
  const names = [titles, short].find((some) => some.reduce((sum, name) => sum + name.length + 3, 0) <= width) ?? only;
  return (
    <Text wrap="truncate" color={theme.muted}>
      {names.map((name, i) => (
        <Text key={listed[i]?.name} inverse={i === active} bold={i === active} color={i === active ? theme.accent : theme.muted}>
          {` ${i + 1}${name && ` ${name}`}`}
        </Text>
      ))}
    </Text>
  );
}

function Footer({
  message,
  filter,
  typing,
  width,
}: {
  message: { text: string; kind: 'good' | 'bad' } | null;
  filter: string;
  typing: boolean;
  width: number;
}) {
  const rows = useActiveRows().filter(({ hint }) => hint);
  const prefix = typing || filter ? ` /${printable(filter)}${typing ? '▏' : ''}  ` : ' ';
  if (message) return <Text color={message.kind === 'bad' ? theme.bad : theme.good} wrap="truncate">{` ${printable(message.text)}`}</Text>;
  return (
    <Text wrap="truncate" color={theme.muted}>
      <Text color={theme.accent}>{prefix}</Text>
      {fitRows(rows, width - prefix.length).map((row) => (
        <Text key={keysOf(row).join()}>
          <Text color={theme.accent}>{keysOf(row)[0]}</Text>
          {` ${row.label}  `}
        </Text>
      ))}
    </Text>
  );
}

/** As many rows as have room, `?` always among them. */
function fitRows<Row extends { keys: string | string[]; label: string }>(rows: Row[], width: number): Row[] {
  const sizeOf = ({ keys, label }: Row) => (Array.isArray(keys) ? (keys[0] as string) : keys).length + label.length + 3;
  const help = rows.filter(({ keys }) => keys === '?');
  let room = width - help.reduce((sum, row) => sum + sizeOf(row), 0);
  const others = rows.filter((row) => {
    if (help.includes(row)) return false;
    room -= sizeOf(row);
    return room >= 0;
  });
  return [...others, ...help];
}

function Help({ width, height, onClose }: { width: number; height: number; onClose: () => void }) {
  const below = useActiveRowsBelow();
  const [top, setTop] = useState(0);
  const most = Math.max(0, below.length - (height - 1));
  useKeys(
    [
      { keys: ['esc', '?', 'q', 'enter'], label: 'close the help', hint: true, run: onClose },
      { keys: ['j', 'down'], label: 'further', run: () => setTop((n) => Math.min(most, n + 1)) },
      { keys: ['k', 'up'], label: 'back', run: () => setTop((n) => Math.max(0, n - 1)) },
      { keys: ['ctrl-d', 'pagedown'], label: 'half a page down', run: () => setTop((n) => Math.min(most, n + Math.ceil(height / 2))) },
      { keys: ['ctrl-u', 'pageup'], label: 'half a page up', run: () => setTop((n) => Math.max(0, n - Math.ceil(height / 2))) },
    ],
    { level: level.overlay, modal: true },
  );
  return (
    <Box flexDirection="column" width={width} height={height}>
      <Text
        bold
      >{` Keys of this screen${most > 0 ? `  (${top + 1} to ${Math.min(below.length, top + height - 1)} of ${below.length}: j, k)` : ''}`}</Text>
      {below.slice(top, top + height - 1).map((row) => (
        <Text key={keysOf(row).join() + row.label} wrap="truncate">
          <Text color={theme.accent}>{` ${padTo(keysOf(row).join(', '), 20)}`}</Text>
          {row.label}
        </Text>
      ))}
    </Box>
  );
}

/** The rows as they were when the help was opened: its own keys are not among them. */
function useActiveRowsBelow() {
  const rows = useActiveRows();
  const [below] = useState(rows);
  return below;
}

interface Entry {
  name: string;
  title: string;
  run(): void;
}

function Palette({ entries, height, onClose }: { entries: Entry[]; height: number; onClose: () => void }) {
  const [text, setText] = useState('');
  const [cursor, setCursor] = useState(0);
  const found = entries.filter(({ name, title }) => `${name} ${title}`.toLowerCase().includes(text.toLowerCase()));
  const at = Math.min(cursor, Math.max(0, found.length - 1));
  const visible = Math.max(1, height - 1);
  const first = Math.max(0, at - visible + 1);
  useKeys(
    [
      { keys: 'enter', label: 'go there', hint: true, run: () => found[at]?.run() },
      { keys: 'esc', label: 'close', hint: true, run: onClose },
      { keys: ['down', 'tab'], label: 'next', run: () => setCursor((at + 1) % Math.max(1, found.length)) },
      { keys: ['up', 'shift-tab'], label: 'previous', run: () => setCursor((at - 1 + found.length) % Math.max(1, found.length)) },
      { keys: 'backspace', label: 'delete', run: () => setText((before) => before.slice(0, -1)) },
    ],
    {
      level: level.overlay,
      modal: true,
      text: (typed) => {
        setText((before) => before + typed);
        setCursor(0);
      },
    },
  );
  return (
    <Box flexDirection="column">
      <Text>
        <Text color={theme.accent} bold>{` :${printable(text)}`}</Text>
        <Text inverse> </Text>
      </Text>
      {found.slice(first, first + visible).map(({ name, title }, i) => {
        const isCursor = first + i === at;
        return <Text key={name} inverse={isCursor}>{` ${isCursor ? '›' : ' '} ${padTo(name, 14)} ${title} `}</Text>;
      })}
      {found.length === 0 && <Text color={theme.muted}> No screen is called that.</Text>}
    </Box>
  );
}

function Confirm({ question, onAnswer }: { question: string; onAnswer: (yes: boolean) => void }) {
  useKeys(
    [
      { keys: 'y', label: 'yes', hint: true, run: () => onAnswer(true) },
      { keys: ['n', 'esc', 'q'], label: 'no', hint: true, run: () => onAnswer(false) },
    ],
    { level: level.overlay, modal: true },
  );
  return (
    <Box flexDirection="column" paddingX={1} paddingY={1}>
      <Text bold color={theme.warn}>
        {printable(question)}
      </Text>
      <Text>
        <Text color={theme.accent}>y</Text> yes <Text color={theme.accent}>n</Text> no
      </Text>
    </Box>
  );
}
