/** `./whetstone tui`: the terminal UI, or with --json what one of its screens shows. */
import { parseArgs } from 'node:util';
import type { AnyVariables, TypedDocumentNode } from '@urql/core';
import { render } from 'ink';
import { reasonOf } from './actions.ts';
import { screens } from './screens/screens.ts';
import { connect } from './session/connection.ts';
import { localServer } from './session/localServer.ts';
import { openSession } from './session/session.ts';
import { configFolder, openStore } from './session/store.ts';
import { App } from './ui/App.tsx';

const usage = `Usage: ./whetstone tui [screen] [id …] [--url <address>] [--json]

Screens: ${screens.map(({ name }) => name).join(', ')}
--url    the server; without it WHETSTONE_URL, WHETSTONE_PORT on this machine, the one of the last time, or http://127.0.0.1:8080
--json   print what the screen shows as JSON, with the login of the terminal UI or WHETSTONE_TOKEN`;

/** What a person can mend: its text is all that is shown. */
class UsageError extends Error {}

async function main(): Promise<void> {
  const { values, positionals } = parse();
  if (values.help) return console.log(usage);
  const [screen = 'overview', ...ids] = positionals;
  const id = ids.length > 0 ? ids.join(',') : undefined;
  const row = screens.find(({ name }) => name === screen);
  if (!row) throw new UsageError(`There is no screen “${screen}”.\n\n${usage}`);
  const folder = configFolder(process.env);
  const store = openStore(folder);
  const { WHETSTONE_URL, WHETSTONE_PORT } = process.env;
  const local = WHETSTONE_PORT && `http://127.0.0.1:${WHETSTONE_PORT}`;
  const url = addressOf(values.url ?? WHETSTONE_URL ?? local ?? store.url() ?? 'http://127.0.0.1:8080');
  if (values.json) return printJson(url, store, row.query, id);
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

function parse() {
  try {
    return parseArgs({
      options: { url: { type: 'string' }, json: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
      allowPositionals: true,
    });
  } catch (error) {
    throw new UsageError(`${(error as Error).message}\n\n${usage}`);
  }
}

function addressOf(text: string): string {
  const { origin, protocol } = URL.parse(text) ?? {};
  if (!origin || !['http:', 'https:'].includes(protocol ?? ''))
    throw new UsageError(`“${text}” is no address such as http://127.0.0.1:8080.`);
  return origin;
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

main().catch((error: unknown) => {
  console.error(error instanceof UsageError ? error.message : error);
  process.exit(1);
});
