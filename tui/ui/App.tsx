/** From the first look at the server to the frame: is it there, has it a user, who is logged in. */
import { Box, Text, useApp, useWindowSize } from 'ink';
import { useCallback, useEffect, useState } from 'react';
import { Provider } from 'urql';
import { type FieldError, type Permission, reasonOf } from '../actions.ts';
import { graphql, type ResultOf } from '../graphql.ts';
import { type Connection, connect } from '../session/connection.ts';
import { ConnectionContext } from '../session/live.tsx';
import type { LocalServer } from '../session/localServer.ts';
import { bootstrap, openSession, Refusal, readServerState, type Session } from '../session/session.ts';
import type { Store } from '../session/store.ts';
import { Form } from './Form.tsx';
import type { Field } from './fields.ts';
import { KeysProvider, useKeys } from './keys.tsx';
import type { Route } from './nav.tsx';
import { Shell } from './Shell.tsx';
import { theme } from './theme.ts';

export const ViewerQuery = graphql(`
  query TuiViewer { viewer { name role permissions } }
`);
type Viewer = NonNullable<ResultOf<typeof ViewerQuery>['viewer']>;

interface Props {
  url: string;
  store: Store;
  /** Null where the address is not of this machine. */
  local: LocalServer | null;
  first: Route;
  /** Takes what is printed when the UI has closed. */
  leave(text: string): void;
}

type Phase = { at: 'LOOKING' } | { at: 'NO_SERVER'; reason: string } | { at: 'NEW' } | { at: 'LOGIN'; notice: string } | { at: 'IN' };

const smallest = { columns: 40, rows: 12 };

export function App({ url, store, local, first, leave }: Props) {
  const { columns, rows } = useWindowSize();
  const [session] = useState(() => openSession(url, store));
  const [phase, setPhase] = useState<Phase>({ at: 'LOOKING' });
  const [online, setOnline] = useState<{ connection: Connection; viewer: Viewer } | null>(null);

  const look = useCallback(async () => {
    try {
      if (session.loggedIn()) return setPhase({ at: 'IN' });
      const state = await readServerState(url);
      if (state === 'NONE') setPhase({ at: 'NO_SERVER', reason: `There is no server at ${url}.` });
      else setPhase(state === 'NEW' ? { at: 'NEW' } : { at: 'LOGIN', notice: '' });
    } catch (error) {
      setPhase({ at: 'NO_SERVER', reason: (error as Error).message });
    }
  }, [session, url]);
  useEffect(() => void look(), [look]);
  useEffect(() => session.onEnd(() => setPhase({ at: 'LOGIN', notice: 'The session has ended. Log in again.' })), [session]);

  const isIn = phase.at === 'IN';
  useEffect(() => {
    if (!isIn) return;
    const connection = connect(session);
    let left = false;
    let entered = false;
    const enter = async () => {
      const { data, error } = await connection.client.query(ViewerQuery, {}, { requestPolicy: 'network-only' }).toPromise();
      if (left) return;
      if (data?.viewer) {
        entered = true;
        setOnline({ connection, viewer: data.viewer });
      } else if (entered) return;
      else if (error?.networkError) setPhase({ at: 'NO_SERVER', reason: `There is no server at ${url}.` });
      else if (session.loggedIn()) setPhase({ at: 'LOGIN', notice: error ? reasonOf(error) : 'Log in again.' });
    };
    void enter();
    // The server closes the connection when the role changes.
    const stop = connection.onLink(() => entered && connection.link().state === 'CONNECTED' && void enter());
    return () => {
      left = true;
      stop();
      setOnline(null);
      connection.close();
    };
  }, [isIn, session, url]);

  if (columns < smallest.columns || rows < smallest.rows) {
    return <Text>{`This terminal is ${columns} × ${rows}; ${smallest.columns} × ${smallest.rows} is the least.`}</Text>;
  }
  const size = { width: columns, height: rows };
  if (isIn && online) {
    return (
      <ConnectionContext.Provider value={online.connection}>
        <Provider value={online.connection.client}>
          <KeysProvider permissions={online.viewer.permissions as Permission[]}>
            <Shell session={session} viewer={online.viewer} columns={columns} rows={rows} first={first} leave={leave} />
          </KeysProvider>
        </Provider>
      </ConnectionContext.Provider>
    );
  }
  return (
    <KeysProvider permissions={[]}>
      {phase.at === 'NEW' && <BootstrapForm {...size} url={url} session={session} token={local?.bootstrapToken() ?? ''} onDone={look} />}
      {phase.at === 'LOGIN' && <LoginForm {...size} session={session} notice={phase.notice} onDone={look} />}
      {phase.at === 'NO_SERVER' && <NoServer {...size} reason={phase.reason} local={local} onRetry={look} />}
      {(phase.at === 'LOOKING' || phase.at === 'IN') && <Text color={theme.muted}>{` Connecting to ${url} …`}</Text>}
    </KeysProvider>
  );
}

const text = (name: string, label: string, description: string, kind: Field['kind'] = 'text', initial = ''): Field => ({
  ...{ name, label, description, kind, initial },
  required: true,
});

async function errorsOf(work: () => Promise<void>): Promise<FieldError[]> {
  try {
    await work();
    return [];
  } catch (error) {
    return [{ field: error instanceof Refusal ? error.field : null, message: (error as Error).message }];
  }
}

interface Size {
  width: number;
  height: number;
}

function LoginForm({ width, height, session, notice, onDone }: Size & { session: Session; notice: string; onDone: () => void }) {
  const { exit } = useApp();
  return (
    <Box flexDirection="column">
      <Text color={theme.warn}>{` ${notice}`}</Text>
      <Form
        title={`Log in to ${session.url}`}
        width={width}
        height={height - 2}
        submitLabel="log in"
        fields={[
          text('name', 'Name', 'The name of your account.'),
          text('password', 'Password', 'It is not shown, and not stored.', 'secret'),
        ]}
        submit={({ name, password }) =>
          errorsOf(async () => {
            await session.login(String(name), String(password));
            onDone();
          })
        }
        onCancel={exit}
      />
    </Box>
  );
}

function BootstrapForm({
  width,
  height,
  url,
  session,
  token,
  onDone,
}: Size & { url: string; session: Session; token: string; onDone: () => void }) {
  const { exit } = useApp();
  const about = token
    ? 'Read from the file `bootstrap-token` in the data folder.'
    : 'The content of the file `bootstrap-token` in the data folder of the server.';
  return (
    <Form
      title="This server is new. Make its first administrator"
      width={width}
      height={height - 1}
      submitLabel="make the account"
      fields={[
        text('name', 'Name', '1 to 64 letters from A to Z, digits, or . _ @ -'),
        text('password', 'Password', '12 to 128 characters.', 'secret'),
        text('token', 'Bootstrap token', about, 'text', token),
      ]}
      submit={(input) =>
        errorsOf(async () => {
          const { name, password } = input as { name: string; password: string };
          await bootstrap(url, { token: String(input.token).trim(), name, password });
          await session.login(name, password);
          onDone();
        })
      }
      onCancel={exit}
    />
  );
}

function NoServer({ width, reason, local, onRetry }: Size & { reason: string; local: LocalServer | null; onRetry: () => void }) {
  const { exit } = useApp();
  const [state, setState] = useState('');
  const start = () => {
    setState('Starting a server …');
    local?.start().then(onRetry, (error: Error) => setState(error.message));
  };
  useKeys([
    { keys: 'r', label: 'try again', run: onRetry },
    ...(local ? [{ keys: 's', label: 'start a server', run: start }] : []),
    { keys: ['q', 'esc'], label: 'quit', run: () => exit() },
  ]);
  return (
    <Box flexDirection="column" paddingX={1} width={width}>
      <Text bold color={theme.bad}>
        {reason}
      </Text>
      <Text> </Text>
      {local && (
        <Text>
          <Text color={theme.accent}>s</Text>
          {`  start one here, on the data folder ${local.dataDir}. It keeps running when you quit.`}
        </Text>
      )}
      <Text>
        <Text color={theme.accent}>r</Text>
        {'  try again'}
      </Text>
      <Text>
        <Text color={theme.accent}>q</Text>
        {'  quit. Another address: npm run tui -- --url http://host:8080'}
      </Text>
      <Text> </Text>
      <Text>{state}</Text>
    </Box>
  );
}
