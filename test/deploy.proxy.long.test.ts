/** What `deploy/` has for Caddy and nginx, with the real programs: everything that a client does, through the proxy and TLS. */
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { expect, test } from 'vitest';
import { uploadFile } from '../client/upload.ts';
import { deployed, item } from './support/deployments.ts';
import { nextAnswer, withEvents } from './support/events.ts';
import { eventually } from './support/eventually.ts';
import { makeInferenceModels } from './support/inference.ts';
import { type Child, freePort, withChild, withServerProcess } from './support/process.ts';
import { adminName, adminPassword, withFolder } from './support/server.ts';
import { ask, withConnection } from './support/socket.ts';
import { type Api, modelVersionOf } from './support/training.ts';

// The certificates here are signed by nobody.
process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';

const deploy = join(import.meta.dirname, '..', 'deploy');

interface Ports {
  proxy: number;
  server: number;
  inference: number;
}

/** Writes the configuration into a folder, and gives the command that runs in the foreground. */
type Proxy = (folder: string, ports: Ports) => { command: string; args: string[]; env: Record<string, string> };

const proxies: Record<string, Proxy> = {
  caddy(folder, { proxy, server, inference }) {
    const config = join(folder, 'Caddyfile');
    writeFileSync(config, `{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\nimport ${deploy}/caddy/Caddyfile\n`);
    const places = { SITE: `https://localhost:${proxy}`, SERVER: `127.0.0.1:${server}`, INFERENCE: `127.0.0.1:${inference}` };
    const env = { HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder, ...places };
    return { command: 'caddy', args: ['run', '--config', config, '--adapter', 'caddyfile'], env };
  },
  nginx(folder, { proxy, server, inference }) {
    const [certificate, key] = [join(folder, 'certificate.pem'), join(folder, 'key.pem')];
    const subject = ['-subj', '/CN=localhost', '-days', '1'];
    execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', certificate, ...subject], {
      stdio: 'ignore',
    });
    const site = readFileSync(join(deploy, 'nginx', 'whetstone.conf'), 'utf8')
      .replace('listen 443', `listen ${proxy}`)
      .replace('server 127.0.0.1:8080', `server 127.0.0.1:${server}`)
      .replace('server 127.0.0.1:8000', `server 127.0.0.1:${inference}`)
      .replace('/etc/ssl/whetstone.pem', certificate)
      .replace('/etc/ssl/private/whetstone.key', key);
    writeFileSync(join(folder, 'whetstone.conf'), site);
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${folder}/${name};`);
    const user = process.getuid?.() === 0 ? 'user root;' : '';
    writeFileSync(
      join(folder, 'nginx.conf'),
      `${user} daemon off; pid ${folder}/pid; error_log stderr; events {} http { access_log off; ${temporary.join(' ')} include ${folder}/whetstone.conf; }`,
    );
    return { command: 'nginx', args: ['-c', join(folder, 'nginx.conf'), '-e', 'stderr'], env: {} };
  },
};

const isInstalled = (name: string) => spawnSync(name, [name === 'nginx' ? '-v' : 'version']).error === undefined;

/** A POST to /graphql from another address of this machine, which claims to be a third one. */
function postFrom(localAddress: string, url: string, query: string): Promise<{ data: Record<string, never> }> {
  const headers = { 'content-type': 'application/json', 'x-forwarded-for': '192.0.2.9' };
  return new Promise((resolve, reject) => {
    const req = request(`${url}/graphql`, { method: 'POST', family: 4, localAddress, headers }, async (res) => {
      res.on('error', reject);
      resolve(JSON.parse(Buffer.concat(await res.toArray()).toString()));
    });
    req.on('error', reject).end(JSON.stringify({ query }));
  });
}

for (const [name, proxy] of Object.entries(proxies)) {
  const missing = isInstalled(name) ? '' : ` (skipped: ${name} is not installed)`;
  test.skipIf(missing)(`${name}: log-in, queries, streams, a large upload and inference go through it${missing}`, () =>
    withFolder(async (folder) => {
      const [port, inference] = [await freePort(), await freePort()];
      const url = `https://localhost:${port}`;
      const settings = {
        WHETSTONE_DATA_DIR: join(folder, 'data'),
        WHETSTONE_INFERENCE_PORT: String(inference),
        WHETSTONE_PUBLIC_URL: url,
        WHETSTONE_TRUSTED_PROXIES: '127.0.0.1,::1',
      };
      await withServerProcess(settings, async (server) => {
        const { command, args, env } = proxy(folder, { proxy: port, server: Number(new URL(server.url).port), inference });
        const run = async (child: Child) => {
          try {
            await eventually(async () => expect((await fetch(`${url}/health`)).status).toBe(200));
            await use(url, join(folder, 'data'), server.url);
          } finally {
            // nginx ends its workers.
            child.kill('SIGTERM');
            await child.exit;
          }
        };
        await withChild(args, env, run, command);
      });
    }),
  );
}

/** All that a client does; the model that it asks comes from the server itself, `direct`. */
async function use(url: string, dataDir: string, direct: string): Promise<void> {
  const bootstrapToken = readFileSync(join(dataDir, 'bootstrap-token'), 'utf8').trim();
  const account = `name: "${adminName}", password: "${adminPassword}"`;
  await postFrom('127.0.0.2', url, `mutation { bootstrap(input: {token: "${bootstrapToken}", ${account}}) { user { id } } }`);
  const login = `mutation { login(input: {${account}}) { credentials { accessToken } } }`;
  const { data } = await postFrom('127.0.0.2', url, login);
  const api: Api = { url, token: (data as never as { login: { credentials: { accessToken: string } } }).login.credentials.accessToken };

  // The client's own address, in place of the proxy's and of what the client claims.
  const db = new Sqlite(join(dataDir, 'whetstone.db'), { readonly: true });
  expect(db.prepare('SELECT address FROM session').pluck().all()).toEqual(['127.0.0.2']);
  db.close();

  const answer = await fetch(`${url}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${api.token}`, origin: url },
    body: '{"query": "{ viewer { name } }"}',
  });
  expect([answer.headers.get('access-control-allow-origin'), await answer.json()]).toEqual([
    url,
    { data: { viewer: { name: adminName } } },
  ]);

  const subscription = 'subscription { system { version } }';
  await withConnection(url, api.token, async (socket) => {
    expect((await ask(socket, '1', subscription)).payload.data.system.version).toBeTruthy();
  });
  await withEvents(url, subscription, api.token, async (items) => {
    // Each arrives while the stream is open.
    for (let n = 0; n < 3; n += 1) expect((await nextAnswer(items)).data.system.version).toBeTruthy();
  });

  const file = join(dataDir, '..', 'large.bin');
  const sizeBytes = 50 * 1024 ** 2;
  writeFileSync(file, Buffer.alloc(sizeBytes, 'whetstone '));
  expect(await uploadFile({ url, accessToken: async () => api.token }, file, () => {})).toMatchObject({ sizeBytes });

  await makeInferenceModels(join(dataDir, '..'), ['identity']);
  await deployed(api, 'echo', await modelVersionOf({ ...api, url: direct }, 'echo', join(dataDir, '..', 'identity.onnx')));
  const asked = item(1);
  const inferred = await fetch(`${url}/v2/models/echo/infer`, {
    method: 'POST',
    headers: { authorization: `Bearer ${api.token}` },
    body: JSON.stringify(asked),
  });
  expect([inferred.status, (await inferred.json()).outputs[0].data]).toEqual([200, asked.inputs[0]?.data]);

  expect((await fetch(`${url}/metrics`)).status).toBe(404);
}
