import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openDatabase } from '../src/db.ts';
import { nextAnswer, withEvents } from './support/events.ts';
import { type Child, withChild, withServerProcess } from './support/process.ts';
import { adminName, adminPassword, postGraphql, withFolder } from './support/server.ts';
import { withConnection } from './support/socket.ts';

const login = 'mutation ($i: LoginInput!) { login(input: $i) { credentials { accessToken refreshToken } } }';
const subscription = 'subscription { system { __typename } }';

/** Creates the first administrator of a server process and logs in. */
async function admin(url: string, dataDir: string): Promise<string> {
  const token = readFileSync(join(dataDir, 'bootstrap-token'), 'utf8').trim();
  const bootstrap = 'mutation ($i: BootstrapInput!) { bootstrap(input: $i) { userErrors { code } } }';
  await postGraphql(url, bootstrap, { i: { token, name: adminName, password: adminPassword } });
  return (await postGraphql(url, login, { i: { name: adminName, password: adminPassword } })).data.login.credentials.accessToken;
}

test.each(['SIGTERM', 'SIGINT'] as const)(
  '%s: streams end with UNAVAILABLE, sockets with 1001, the request under way is answered, exit 0',
  (signal) =>
    withFolder((dataDir) =>
      withServerProcess({ WHETSTONE_DATA_DIR: dataDir }, async (server) => {
        const token = await admin(server.url, dataDir);
        await withConnection(server.url, token, async (socket) => {
          await withEvents(server.url, subscription, token, async (items) => {
            expect((await nextAnswer(items)).data).toBeTruthy();
            socket.send({ type: 'subscribe', id: '1', payload: { query: subscription } });
            await socket.message((m) => m.type === 'next');
            // A request whose body is not complete when the signal comes.
            const body = JSON.stringify({ query: '{ viewer { name } }' });
            const headers = { 'content-type': 'application/json', 'content-length': body.length, authorization: `Bearer ${token}` };
            const late = request(`${server.url}/graphql`, { method: 'POST', headers });
            late.write(body.slice(0, 5));
            await fetch(`${server.url}/health`);

            server.kill(signal);
            const answers: { errors?: { extensions: { code: string } }[] }[] = [];
            for (let answer = await nextAnswer(items); answer; answer = await nextAnswer(items)) answers.push(answer);
            expect(answers.at(-1)?.errors?.[0]?.extensions).toMatchObject({ code: 'UNAVAILABLE', retryable: true });
            const { code } = await socket.closed;
            expect(code).toBe(1001);
            // Not ready, or refused when the port is closed already.
            expect(
              await fetch(`${server.url}/ready`).then(
                async (r) => `${r.status} ${(await r.json()).reasons?.[0].code}, connection: ${r.headers.get('connection')}`,
                () => 'refused',
              ),
            ).toSatisfy((s) => s === '503 STOPPING, connection: close' || s === 'refused');

            const answered = once(late, 'response');
            late.end(body.slice(5));
            const [{ statusCode, headers: answer }] = await answered;
            expect([statusCode, answer.connection]).toEqual([200, 'close']);
          });
        });
        expect(await server.exit).toEqual({ code: 0, signal: null });
        // The inference host stops too, and says nothing of its own.
        expect(server.lines.filter((line) => line.includes('"stopping"'))).toHaveLength(1);
      }),
    ),
);

test('a client that answers nothing does not keep the server from stopping: a silent socket, an open upgrade, a refused one, half a request', () =>
  withFolder((dataDir) =>
    withServerProcess({ WHETSTONE_DATA_DIR: dataDir }, async (server) => {
      const { port } = new URL(server.url);
      const head = (line: string) => `${line} HTTP/1.1\r\nHost: localhost\r\n`;
      const upgrade =
        'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n';
      const sockets = await Promise.all(
        [
          '',
          head('GET /graphql'),
          `${head('POST /graphql')}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{`,
          `${head('GET /graphql')}${upgrade}Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n`,
          `${head('GET /nothing')}${upgrade}\r\n`,
        ].map(async (text) => {
          // It does not close its side where the server has closed its own.
          const socket = connect({ port: Number(port), host: '127.0.0.1', allowHalfOpen: true });
          socket.on('error', () => {});
          await once(socket, 'connect');
          socket.write(text);
          return socket;
        }),
      );
      await Promise.all([once(sockets[3] as never, 'data'), once(sockets[4] as never, 'data')]);
      server.kill('SIGTERM');
      expect(await server.exit).toEqual({ code: 0, signal: null });
      for (const socket of sockets) socket.destroy();
    }),
  ));

test('SIGTERM to npm, as a service manager sends it, stops the server that `npm start` runs', () =>
  withFolder(async (dataDir) => {
    const env = { HOME: dataDir, WHETSTONE_DATA_DIR: dataDir, WHETSTONE_PORT: '0', WHETSTONE_INFERENCE_PORT: '0' };
    const stopped = async (npm: Child) => {
      const { url } = JSON.parse(await npm.line((line) => line.includes('whetstone is ready')));
      npm.kill('SIGTERM');
      expect((await npm.exit).code).toBe(0);
      await expect(fetch(`${url}/health`)).rejects.toThrow('fetch failed');
    };
    await withChild(['start'], env, stopped, 'npm');
  }));

test('a second signal while it stops changes nothing', () =>
  withFolder((dataDir) =>
    withServerProcess({ WHETSTONE_DATA_DIR: dataDir }, async (server) => {
      for (const signal of ['SIGTERM', 'SIGINT', 'SIGTERM'] as const) server.kill(signal);
      expect(await server.exit).toEqual({ code: 0, signal: null });
    }),
  ));

test('a port that is in use is one message and exit 1, and the data folder is free again', () =>
  withFolder((dataDir) =>
    withFolder((otherDir) =>
      withServerProcess({ WHETSTONE_DATA_DIR: dataDir }, async ({ url }) => {
        const { port } = new URL(url);
        await withChild(['src/main.ts', 'serve'], { WHETSTONE_DATA_DIR: otherDir, WHETSTONE_PORT: port }, async (second) => {
          expect(await second.exit).toEqual({ code: 1, signal: null });
          expect(second.lines.join('\n')).toMatch(/EADDRINUSE|in use/);
          expect(second.lines.join('\n')).not.toMatch(/^\s+at /m);
        });
        await withServerProcess({ WHETSTONE_DATA_DIR: otherDir }, async () => {});
      }),
    ),
  ));

test('each line of the log is JSON with its request id and user, and no secret stands in it', () =>
  withFolder((dataDir) =>
    withServerProcess({ WHETSTONE_DATA_DIR: dataDir, WHETSTONE_LOG_LEVEL: 'trace' }, async (server) => {
      const bootstrapToken = readFileSync(join(dataDir, 'bootstrap-token'), 'utf8').trim();
      const token = await admin(server.url, dataDir);
      await postGraphql(server.url, login, { i: { name: adminName, password: 'a wrong password' } });
      await fetch(`${server.url}/graphql?query={viewer{name}}&token=${token}`, {
        headers: { authorization: `Bearer ${token}`, 'x-request-id': 'mine' },
      });
      const line = JSON.parse(await server.line((l) => l.includes('"requestId":"mine"')));
      expect(line).toMatchObject({
        level: 30,
        method: 'GET',
        path: '/graphql',
        status: 200,
        userId: expect.any(String),
        latencyMs: expect.any(Number),
      });
      for (const path of ['health', 'ready', 'metrics']) {
        await fetch(`${server.url}/${path}`, { headers: { 'x-request-id': path } });
        const polled = await server.line((l) => l.includes(`"requestId":"${path}"`));
        expect(JSON.parse(polled)).toMatchObject({ level: 20, path: `/${path}`, status: 200 });
      }
      server.kill('SIGTERM');
      await server.exit;
      for (const text of server.lines) expect(JSON.parse(text)).toMatchObject({ level: expect.any(Number), time: expect.any(Number) });
      const all = server.lines.join('\n');
      for (const secret of [bootstrapToken, token, adminPassword, 'a wrong password']) expect(all).not.toContain(secret);
    }),
  ));

const resetPassword = ['src/main.ts', 'admin', 'reset-password'];

test('`admin reset-password` gives a user a new password while the server is stopped: the old one, the sessions and a login delay are gone', () =>
  withFolder(async (dataDir) => {
    const env = { WHETSTONE_DATA_DIR: dataDir };
    const oldToken = await withServerProcess(env, async (server) => {
      const token = await admin(server.url, dataDir);
      for (let i = 0; i < 6; i++) await postGraphql(server.url, login, { i: { name: adminName, password: 'wrong' } });
      await withChild([...resetPassword, adminName], env, async (child) => {
        expect(await child.exit).toEqual({ code: 1, signal: null });
        expect(child.lines).toEqual([expect.stringContaining('Another Whetstone server uses this data folder')]);
      });
      server.kill('SIGTERM');
      await server.exit;
      return token;
    });
    const password = await withChild([...resetPassword, adminName.toUpperCase()], env, async (child) => {
      expect(await child.exit).toEqual({ code: 0, signal: null });
      const [, printed] = /^New password of ada: ([\w-]{20})$/.exec(child.lines.join('\n')) ?? [];
      return printed;
    });
    await withServerProcess(env, async ({ url }) => {
      expect((await postGraphql(url, '{ viewer { id } }', {}, oldToken)).status).toBe(401);
      const { data } = await postGraphql(url, login, { i: { name: adminName, password } });
      const query = '{ auditLog(filter: { action: "resetPassword" }) { nodes { actor { name } targetType outcome } } }';
      const log = await postGraphql(url, query, {}, data.login.credentials.accessToken);
      expect(log.data.auditLog.nodes).toEqual([{ actor: null, targetType: 'User', outcome: 'OK' }]);
      expect((await postGraphql(url, login, { i: { name: adminName, password: adminPassword } })).status).toBe(401);
    });
  }));

test('`admin reset-password` of a user who is not there is one message and exit 1', () =>
  withFolder((WHETSTONE_DATA_DIR) => {
    openDatabase(WHETSTONE_DATA_DIR).close();
    return withChild([...resetPassword, 'nobody'], { WHETSTONE_DATA_DIR }, async (child) => {
      expect(await child.exit).toEqual({ code: 1, signal: null });
      expect(child.lines).toEqual(['There is no user called nobody.']);
    });
  }));

test('`admin` with a folder that holds no database says so, names the setting, and makes none', () =>
  withFolder((WHETSTONE_DATA_DIR) =>
    withChild([...resetPassword, adminName], { WHETSTONE_DATA_DIR }, async (child) => {
      expect(await child.exit).toEqual({ code: 1, signal: null });
      expect(child.lines).toEqual([
        `The data folder ${WHETSTONE_DATA_DIR} (WHETSTONE_DATA_DIR) holds no database. Name the folder of your server.`,
      ]);
      expect(readdirSync(WHETSTONE_DATA_DIR)).toEqual([]);
    }),
  ));
