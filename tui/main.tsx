/** `./whetstone tui`: the terminal UI, or with --json what one of its screens shows. */
import type { AnyVariables, TypedDocumentNode } from '@urql/core';
import { render } from 'ink';
import { addressForm, isAddress } from '../client/address.ts';
import { WhetstoneCommand } from '../client/command.ts';
import { describeTui, type ScreenName, type TuiOptions } from '../client/tui.ts';
import { reasonOf } from './actions.ts';
import { screens } from './screens/screens.ts';
import { connect } from './session/connection.ts';
import { localServer } from './session/localServer.ts';
import { openSession } from './session/session.ts';
import { configFolder, openStore } from './session/store.ts';
import { App } from './ui/App.tsx';

/** What a person can mend: its text is all that is shown. */
class UsageError extends Error {}

async function main(screen: ScreenName, ids: string[], options: TuiOptions): Promise<void> {
  const id = ids.length > 0 ? ids.join(',') : undefined;
  const folder = configFolder(process.env);
  const store = openStore(folder);
  const { WHETSTONE_URL, WHETSTONE_PORT } = process.env;
  const local = WHETSTONE_PORT && originOf(`http://127.0.0.1:${WHETSTONE_PORT}`, 'WHETSTONE_PORT');
  const fallback = local || store.url() || 'http://127.0.0.1:8080';
  const url = options.url ? originOf(options.url, '--url') : WHETSTONE_URL ? originOf(WHETSTONE_URL, 'WHETSTONE_URL') : fallback;
  if (options.json) return printJson(url, store, screens.find(({ name }) => name === screen)?.query, id);
  if (!process.stdin.isTTY || !process.stdout.isTTY)
    throw new UsageError('This is no terminal. For scripts: ./whetstone tui <screen> --json');

  // Node prints warnings, such as one about a deprecated call inside of a package, into the middle of the screen.
  process.removeAllListeners('warning');
  // The project's folder: npm runs its scripts there.
  const server = localServer(url, process.cwd(), folder, process.env);
  const left = new Set<string>();
  const first = id === undefined ? { screen } : { screen, id };
  const app = render(<App url={url} store={store} local={server} first={first} leave={(text) => left.add(text)} />, {
    alternateScreen: true,
    incrementalRendering: true,
    // A frame waits no longer than this after the one before; less than 50 ms are left to a key.
    maxFps: 60,
    patchConsole: false,
  });
  await app.waitUntilExit();
  for (const text of [...left, server?.farewell()]) if (text) console.log(text);
  // Sockets and timers of the screens end with the process.
  process.exit(0);
}

function originOf(address: string, source: string): string {
  if (!isAddress(address)) throw new UsageError(`${source}: “${address}” is not ${addressForm}.`);
  return new URL(address).origin;
}

async function printJson(
  url: string,
  store: ReturnType<typeof openStore>,
  query: TypedDocumentNode<unknown, never> | undefined,
  id: string | undefined,
) {
  if (!query) throw new UsageError('This screen has nothing to print.');
  const token = process.env.WHETSTONE_TOKEN;
  const session = openSession(url, token ? withToken(token) : store);
  if (!session.loggedIn())
    throw new UsageError(`Nobody is logged in at ${url}. Run \`./whetstone tui\` once, or set WHETSTONE_TOKEN to an access token.`);
  const { client } = connect(session);
  const { data, error } = await client
    .query(query as TypedDocumentNode<unknown, AnyVariables>, id === undefined ? {} : { id, ids: id.split(',') })
    .toPromise();
  if (error) throw new UsageError(reasonOf(error));
  if (id !== undefined && Object.values(data ?? {}).every((value) => value === null))
    throw new UsageError(`There is nothing with the id or name ${id}.`);
  // urql adds the names of the types for its cache.
  console.log(JSON.stringify(data, (key, value) => (key === '__typename' ? undefined : value), 2));
  process.exit(0);
}

/** An access token in place of a login: nothing is remembered. */
const withToken = (accessToken: string): ReturnType<typeof openStore> => ({
  url: () => undefined,
  credentials: () => ({ accessToken, accessTokenExpiresAt: new Date(Date.now() + 3_600_000).toISOString(), refreshToken: '' }),
  remember: () => {},
  exclusively: (use) => use(),
});

const program = new WhetstoneCommand('whetstone');
describeTui(program.command('tui')).action(main);
program.parseAsync(['tui', ...process.argv.slice(2)], { from: 'user' }).catch((error: unknown) => {
  console.error(error instanceof UsageError ? error.message : error);
  process.exit(1);
});
