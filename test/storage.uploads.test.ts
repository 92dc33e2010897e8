import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { eq } from 'drizzle-orm';
import { expect, test } from 'vitest';
import { upload } from '../src/storage/tables.ts';
import { withServerProcess } from './support/process.ts';
import { postGraphql, type TestServer, withFolder, withServer } from './support/server.ts';
import {
  append,
  blobOf,
  blobsOf,
  bytesOf,
  create,
  named,
  post,
  send,
  sha256,
  sizeOf,
  stagingOf,
  tus,
  until,
  withRows,
} from './support/storage.ts';

const run = promisify(execFile);
const mebibyte = 1024 * 1024;

/** The error of an answer, in the form that GraphQL's have. */
const codeOf = (reply: { json: { errors: { extensions: { code: string } }[] } }) => reply.json.errors[0]?.extensions.code;

/** Starts a PATCH that announces all of `bytes`, sends `part` of them, and leaves the connection open. */
async function sendPart(server: TestServer, { address, id }: { address: string; id: string }, token: string, bytes: Buffer, part: number) {
  const { hostname, port, pathname } = new URL(address);
  const socket = connect(Number(port), hostname);
  await once(socket, 'connect');
  socket.on('error', () => {});
  const head = [
    'PATCH',
    pathname,
    'HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Type: application/offset+octet-stream',
  ];
  socket.write(`${head.join(' ')}\r\nAuthorization: Bearer ${token}\r\nContent-Length: ${bytes.length}\r\n\r\n`);
  socket.write(bytes.subarray(0, part));
  await until(() => sizeOf(join(server.dataDir, 'uploads', id)) === part);
  return socket;
}

test('one curl line uploads a file, and tells its id, hash and size', () =>
  withServer(async ({ url, as, dataDir }) =>
    withFolder(async (folder) => {
      const bytes = bytesOf('curl', 3 * mebibyte + 17);
      const file = join(folder, 'digits.zip');
      writeFileSync(file, bytes);
      const token = await as('ENGINEER');
      const args = ['-sS', '-X', 'POST', '-T', file, '-H', `Authorization: Bearer ${token}`, `${url}/uploads?filename=digits.zip`];
      const { stdout } = await run('curl', args);
      expect(JSON.parse(stdout)).toEqual({
        uploadId: expect.stringMatching(/^[0-9a-f-]{36}$/),
        sha256: sha256(bytes),
        sizeBytes: bytes.length,
      });
      expect(readFileSync(blobOf(dataDir, sha256(bytes))).equals(bytes)).toBe(true);
      expect(stagingOf(dataDir)).toEqual([]);
    }),
  ));

test('a plain body without a length is taken too, as far as the cap', () =>
  withServer(
    async ({ url, admin, dataDir }) => {
      const token = await admin();
      const bytes = bytesOf('chunked', mebibyte);
      const address = `${url}/uploads?filename=stdin.bin`;
      const taken = await send({ method: 'POST', address, token, body: [bytes.subarray(0, 1000), bytes.subarray(1000)] });
      expect([taken.status, taken.json.sha256, taken.json.sizeBytes]).toEqual([201, sha256(bytes), mebibyte]);
      const status = await send({ method: 'GET', address: `${url}/uploads/${taken.json.uploadId}`, token });
      expect(status.json).toMatchObject({ state: 'COMPLETE', sizeBytes: mebibyte, offset: mebibyte, sha256: sha256(bytes) });

      const endless = Array.from({ length: 8 }, () => bytes);
      const refused = await send({ method: 'POST', address, token, body: endless });
      expect([refused.status, codeOf(refused)]).toEqual([413, 'TOO_LARGE']);
      expect(stagingOf(dataDir)).toEqual([]);
      const list = await send({ method: 'GET', address: `${url}/uploads`, token });
      expect(list.json.uploads).toHaveLength(1);
    },
    { WHETSTONE_UPLOAD_BYTES_MAX: String(2 * mebibyte) },
  ));

test('tus creates, appends, tells the offset and completes; the bytes may come with the creation', () =>
  withServer(async ({ url, as, dataDir }) => {
    const token = await as('ENGINEER');
    const bytes = bytesOf('tus', 100_000);
    const { address, id } = await create(url, token, bytes.length, 'größe.zip');
    const offset = async () => (await tus('HEAD', address, token)).headers['upload-offset'];
    expect(await offset()).toBe('0');
    expect((await append(address, token, 0, [bytes.subarray(0, 60_000)], 60_000)).headers['upload-offset']).toBe('60000');
    expect(await offset()).toBe('60000');
    const conflict = await append(address, token, 0, [bytes], bytes.length);
    expect([conflict.status, codeOf(conflict)]).toEqual([409, 'CONFLICT']);
    const last = await append(address, token, 60_000, [bytes.subarray(60_000)]);
    expect([last.status, last.headers['upload-offset']]).toEqual([204, '100000']);
    const head = await tus('HEAD', address, token);
    expect([head.status, head.headers['upload-offset'], head.headers['upload-length']]).toEqual([200, '100000', '100000']);
    expect(head.headers['upload-metadata']).toBe(named('größe.zip'));
    const status = await send({ method: 'GET', address, token });
    expect(status.json).toMatchObject({ uploadId: id, fileName: 'größe.zip', state: 'COMPLETE', sha256: sha256(bytes) });
    expect(blobsOf(dataDir)).toEqual([sha256(bytes)]);

    const headers = { 'upload-length': '5', 'upload-metadata': named('hello.txt'), 'content-type': 'application/offset+octet-stream' };
    const whole = await tus('POST', `${url}/uploads`, token, headers, ['hello']);
    expect([whole.status, whole.headers['upload-offset'], whole.json.sha256]).toEqual([201, '5', sha256('hello')]);
    const options = await tus('OPTIONS', `${url}/uploads`, token);
    expect(options.headers['tus-extension']).toBe('creation,creation-with-upload,expiration,termination');
  }));

test('a client that cannot send PATCH and DELETE says them in the header that OPTIONS announces', () =>
  withServer(async ({ url, admin }) => {
    const token = await admin();
    const announced = (await tus('OPTIONS', `${url}/uploads`, token)).headers['access-control-allow-headers'];
    expect(announced).toContain('X-HTTP-Method-Override');
    const { address } = await create(url, token, 5);
    const headers = { 'upload-offset': '0', 'content-type': 'application/offset+octet-stream', 'x-http-method-override': 'PATCH' };
    const appended = await send({ method: 'POST', address, token, headers: { 'tus-resumable': '1.0.0', ...headers }, body: ['hello'] });
    expect([appended.status, appended.headers['upload-offset']]).toEqual([204, '5']);
    expect((await send({ method: 'GET', address, token })).json).toMatchObject({ state: 'COMPLETE', offset: 5 });
    const deleted = await tus('POST', address, token, { 'x-http-method-override': 'DELETE' });
    expect([deleted.status, (await send({ method: 'GET', address, token })).status]).toEqual([204, 404]);
  }));

test('nobody without a login, and no Viewer, uploads', () =>
  withServer(async ({ url, as, dataDir }) => {
    const address = `${url}/uploads?filename=a.zip`;
    const anonymous = await send({ method: 'POST', address, body: ['x'] });
    expect([anonymous.status, codeOf(anonymous), anonymous.headers['www-authenticate']]).toEqual([401, 'UNAUTHENTICATED', 'Bearer']);
    const forged = await send({ method: 'POST', address, token: 'x.y.z', body: ['x'] });
    expect([forged.status, codeOf(forged)]).toEqual([401, 'UNAUTHENTICATED']);
    const viewer = await send({ method: 'POST', address, token: await as('VIEWER'), body: ['x'] });
    expect([viewer.status, codeOf(viewer)]).toEqual([403, 'FORBIDDEN']);
    expect(stagingOf(dataDir)).toEqual([]);
  }));

test('an upload is its creator’s alone: for everybody else, the administrator included, it is not there', () =>
  withServer(async ({ url, as, admin }) => {
    const token = await as('ENGINEER');
    const { address, id } = await create(url, token, 5);
    const other = await admin();
    const tries = [
      await tus('HEAD', address, other),
      await append(address, other, 0, ['hello'], 5),
      await tus('DELETE', address, other),
      await send({ method: 'GET', address, token: other }),
      await tus('HEAD', `${url}/uploads/${id}x`, token),
      await tus('HEAD', `${url}/uploads/..%2f${id}`, token),
    ];
    expect(tries.map((reply) => reply.status)).toEqual([404, 404, 404, 404, 404, 404]);
    expect((await send({ method: 'GET', address: `${url}/uploads`, token: other })).json).toEqual({ uploads: [] });
    expect((await append(address, token, 0, ['hello'], 5)).status).toBe(204);
  }));

test('its creator deletes it, at any time before it is used', () =>
  withServer(async ({ url, admin, dataDir }) => {
    const token = await admin();
    const begun = await create(url, token, 100);
    await append(begun.address, token, 0, ['half'], 4);
    expect(stagingOf(dataDir)).toEqual([begun.id]);
    expect((await tus('DELETE', begun.address, token)).status).toBe(204);
    expect(stagingOf(dataDir)).toEqual([]);
    expect((await tus('HEAD', begun.address, token)).status).toBe(404);

    const { json } = await post(url, token, 'a.zip', 'done');
    await withRows(dataDir, (db) => db.update(upload).set({ state: 'CONSUMED' }).where(eq(upload.id, json.uploadId)).run());
    const used = await tus('DELETE', `${url}/uploads/${json.uploadId}`, token);
    expect([used.status, codeOf(used)]).toEqual([409, 'IN_USE']);
    await withRows(dataDir, (db) => db.update(upload).set({ state: 'COMPLETE' }).where(eq(upload.id, json.uploadId)).run());
    expect((await tus('DELETE', `${url}/uploads/${json.uploadId}`, token)).status).toBe(204);
    expect((await tus('HEAD', `${url}/uploads/${json.uploadId}`, token)).status).toBe(404);
  }));

test('a file name with a path in it, however it is written, is 400, and nothing is written anywhere', () =>
  withServer(async ({ url, admin, dataDir }) => {
    const token = await admin();
    const names = [
      '../etc/passwd',
      '..',
      '.',
      '/etc/passwd',
      'a/b.zip',
      'a\\b.zip',
      '..\\up',
      'C:evil',
      'nul\0byte',
      'line\nbreak',
      '\u202egpj.exe',
    ];
    const encoded = ['%2e%2e', '%2e%2e%2fx', '%252e%252e%252fx', '%252e', '%25252e%25252e', '..%5cx', '%2Fetc', 'a%00b', '%c0%ae%2f'];
    const long = ['x'.repeat(300), 'ü'.repeat(128)];
    for (const name of [...names, ...encoded, ...long, '']) {
      const headers = { 'upload-length': '5', 'upload-metadata': name === '' ? 'filename' : named(name) };
      const byTus = await tus('POST', `${url}/uploads`, token, headers);
      expect([name, byTus.status, codeOf(byTus)]).toEqual([name, 400, 'INVALID']);
      const plain = await post(url, token, name, 'hello');
      expect([name, plain.status, codeOf(plain)]).toEqual([name, 400, 'INVALID']);
    }
    // As the browser or curl sends them: the query is decoded once.
    for (const name of ['../x', '%2e%2e', '%252e%252e%252fx', 'a%5cb']) {
      const reply = await send({ method: 'POST', address: `${url}/uploads?filename=${name}`, token, body: ['hello'] });
      expect([name, reply.status]).toEqual([name, 400]);
    }
    expect(stagingOf(dataDir)).toEqual([]);
    expect(existsSync(join(dataDir, 'x'))).toBe(false);
    for (const name of ['100 %.zip', 'größe 50%25 off.zip', '.hidden', 'a..b', 'x'.repeat(255)]) {
      expect([name, (await post(url, token, name, name)).status]).toEqual([name, 201]);
    }
  }));

test('a wrong length, a deferred one, an empty file and foreign methods are refused with the reason', () =>
  withServer(
    async ({ url, admin, dataDir }) => {
      const token = await admin();
      const from = async (headers: Record<string, string>) => {
        const reply = await tus('POST', `${url}/uploads`, token, { 'upload-metadata': named('a.zip'), ...headers });
        return [reply.status, codeOf(reply)];
      };
      expect(await from({})).toEqual([400, 'INVALID']);
      expect(await from({ 'upload-defer-length': '1' })).toEqual([400, 'INVALID']);
      expect(await from({ 'upload-length': '-1' })).toEqual([400, 'INVALID']);
      expect(await from({ 'upload-length': '1e3' })).toEqual([400, 'INVALID']);
      expect(await from({ 'upload-length': '0' })).toEqual([400, 'INVALID']);
      expect(await from({ 'upload-length': '1001' })).toEqual([413, 'TOO_LARGE']);
      expect(await from({ 'upload-length': '9007199254740991' })).toEqual([413, 'TOO_LARGE']);
      expect(await from({ 'upload-length': '5', 'upload-metadata': 'filename !' })).toEqual([400, 'INVALID']);
      expect(await from({ 'upload-length': '5', 'tus-resumable': '0.2' })).toEqual([400, 'INVALID']);
      const announced = await post(url, token, 'a.zip', Buffer.alloc(1001));
      expect([announced.status, codeOf(announced)]).toEqual([413, 'TOO_LARGE']);
      for (const body of [[], ['']]) {
        const empty = await send({ method: 'POST', address: `${url}/uploads?filename=a.zip`, token, body });
        expect([empty.status, empty.json.errors[0].message]).toEqual([400, 'The file is empty.']);
      }
      const nameless = await send({ method: 'POST', address: `${url}/uploads`, token, body: ['x'] });
      expect(nameless.json.errors[0].message).toContain('?filename=digits.zip');
      for (const method of ['PUT', 'TRACE', 'PROPFIND']) {
        const reply = await send({ method, address: `${url}/uploads`, token });
        expect([method, reply.status, reply.headers.allow]).toEqual([method, 405, 'GET, POST, OPTIONS']);
      }
      const form = await fetch(`${url}/uploads?filename=a.zip`, {
        method: 'POST',
        headers: { authorization: `Bearer ${token}` },
        body: new FormData(),
      });
      expect([form.status, await form.json()]).toMatchObject([
        415,
        { errors: [{ message: expect.stringContaining('curl -X POST -T digits.zip') }] },
      ]);
      expect(stagingOf(dataDir)).toEqual([]);
      expect(await withRows(dataDir, (db) => db.select().from(upload).all())).toEqual([]);
    },
    { WHETSTONE_UPLOAD_BYTES_MAX: '1000' },
  ));

test('a chunked body that goes on past the announced length is 413 there, and the file stays as it was', () =>
  withServer(async ({ url, admin, dataDir }) => {
    const token = await admin();
    const { address, id } = await create(url, token, mebibyte);
    const chunk = bytesOf('flood', 256 * 1024);
    const flood = await append(
      address,
      token,
      0,
      Array.from({ length: 40 }, () => chunk),
    );
    expect([flood.status, codeOf(flood)]).toEqual([413, 'TOO_LARGE']);
    const size = sizeOf(join(dataDir, 'uploads', id));
    expect(size).toBeLessThanOrEqual(mebibyte);
    expect((await tus('HEAD', address, token)).headers['upload-offset']).toBe(String(size));
    const announced = await append(address, token, size, [Buffer.alloc(2 * mebibyte)], 2 * mebibyte);
    expect([announced.status, codeOf(announced)]).toEqual([413, 'TOO_LARGE']);
  }));

test('a user has 20 unfinished uploads at most', () =>
  withServer(async ({ url, admin, as }) => {
    const token = await admin();
    const open = [];
    for (let n = 0; n < 20; n += 1) open.push(await create(url, token, 5));
    const more = await post(url, token, 'a.zip', 'hello');
    expect([more.status, codeOf(more), more.json.errors[0].message]).toEqual([
      400,
      'LIMIT',
      expect.stringContaining('20 unfinished uploads'),
    ]);
    await create(url, await as('ENGINEER'), 5);
    await append(open[0]?.address as string, token, 0, ['hello'], 5);
    await create(url, token, 5);
    await expect(create(url, token, 5)).rejects.toThrow('LIMIT');
    const list = await send({ method: 'GET', address: `${url}/uploads`, token });
    expect(list.json.uploads.map((u: { state: string }) => u.state)).toEqual(['COMPLETE', ...Array.from({ length: 20 }, () => 'OPEN')]);
  }));

test('a client that is gone in the middle resumes at its offset, and the hash is that of its file', () =>
  withServer(async (server) => {
    const token = await server.admin();
    const bytes = bytesOf('resume', 4 * mebibyte);
    const made = await create(server.url, token, bytes.length);
    const socket = await sendPart(server, made, token, bytes, 1_500_000);
    socket.destroy();
    const offset = Number((await tus('HEAD', made.address, token)).headers['upload-offset']);
    expect(offset).toBe(1_500_000);
    expect((await append(made.address, token, offset, [bytes.subarray(offset)])).status).toBe(204);
    expect((await send({ method: 'GET', address: made.address, token })).json.sha256).toBe(sha256(bytes));
  }));

test('a client that comes back on a new connection ends the request that it has lost', () =>
  withServer(async (server) => {
    const token = await server.admin();
    const bytes = bytesOf('half-open', 2 * mebibyte);
    const made = await create(server.url, token, bytes.length);
    const lost = await sendPart(server, made, token, bytes, mebibyte);
    // The old connection still stands, as after a change of the network.
    const offset = Number((await tus('HEAD', made.address, token)).headers['upload-offset']);
    expect(offset).toBe(mebibyte);
    const rest = append(made.address, token, offset, [bytes.subarray(offset)]);
    lost.write(bytes.subarray(mebibyte));
    expect((await rest).status).toBe(204);
    expect((await send({ method: 'GET', address: made.address, token })).json.sha256).toBe(sha256(bytes));
    lost.destroy();
  }));

test('a creation that breaks off before its answer leaves nothing: nobody knows its id', () =>
  withServer(async ({ url, admin, dataDir }) => {
    const token = await admin();
    const cut = send({
      method: 'POST',
      address: `${url}/uploads?filename=a.zip`,
      token,
      headers: { 'content-length': '1000000' },
      body: [
        Buffer.alloc(100_000),
        () => until(() => stagingOf(dataDir).some((id) => sizeOf(join(dataDir, 'uploads', id)) > 0)),
        () => Promise.reject(new Error('cut')),
      ],
    });
    await expect(cut).rejects.toThrow('cut');
    await until(() => stagingOf(dataDir).length === 0);
    await until(async () => (await withRows(dataDir, (db) => db.select().from(upload).all())).length === 0);
  }));

test('the server, killed in the middle of an upload, goes on at the same offset after its restart', () =>
  withFolder(async (WHETSTONE_DATA_DIR) => {
    const env = { WHETSTONE_DATA_DIR, WHETSTONE_LOG_LEVEL: 'info' };
    const token = await withServer(({ admin }) => admin(), { WHETSTONE_DATA_DIR });
    const bytes = bytesOf('killed', 3 * mebibyte);
    const id = await withServerProcess(env, async (server) => {
      const made = await create(server.url, token, bytes.length);
      await sendPart({ ...server, dataDir: WHETSTONE_DATA_DIR } as unknown as TestServer, made, token, bytes, 2 * mebibyte);
      server.kill('SIGKILL');
      await server.exit;
      return made.id;
    });
    await withServerProcess(env, async ({ url }) => {
      const address = `${url}/uploads/${id}`;
      expect((await tus('HEAD', address, token)).headers['upload-offset']).toBe(String(2 * mebibyte));
      expect((await append(address, token, 2 * mebibyte, [bytes.subarray(2 * mebibyte)])).status).toBe(204);
      expect((await send({ method: 'GET', address, token })).json).toMatchObject({ state: 'COMPLETE', sha256: sha256(bytes) });
    });
  }));

test('a stop during an upload ends in time, and the upload goes on afterwards', () =>
  withFolder(async (WHETSTONE_DATA_DIR) => {
    const env = { WHETSTONE_DATA_DIR };
    const bytes = bytesOf('stop', 2 * mebibyte);
    const { token, id } = await withServer(async (server) => {
      const token = await server.admin();
      const made = await create(server.url, token, bytes.length);
      await sendPart(server, made, token, bytes, mebibyte);
      return { token, id: made.id };
    }, env);
    await withServer(async ({ url }) => {
      const address = `${url}/uploads/${id}`;
      expect((await append(address, token, mebibyte, [bytes.subarray(mebibyte)])).status).toBe(204);
      expect((await send({ method: 'GET', address, token })).json.sha256).toBe(sha256(bytes));
    }, env);
  }));

test('addresses stand behind the public URL; without one they are paths', () =>
  withServer(
    async ({ url, admin }) => {
      const token = await admin();
      const headers = { 'upload-length': '5', 'upload-metadata': named('a.zip'), host: 'evil.example' };
      const reply = await tus('POST', `${url}/uploads`, token, headers);
      expect(reply.headers.location).toMatch(/^https:\/\/lab\.example\/whetstone\/uploads\/[0-9a-f-]{36}$/);
    },
    { WHETSTONE_PUBLIC_URL: 'https://lab.example/whetstone/' },
  ));

test('another origin is refused, an allowed one may read the offset', () =>
  withServer(
    async ({ url, admin }) => {
      const token = await admin();
      const { address } = await create(url, token, 5);
      expect((await tus('HEAD', address, token, { origin: 'https://evil.example' })).status).toBe(403);
      const reply = await tus('HEAD', address, token, { origin: 'https://good.example' });
      expect(reply.headers['access-control-allow-origin']).toBe('https://good.example');
      expect(reply.headers['access-control-expose-headers']).toContain('Upload-Offset');
    },
    { WHETSTONE_ALLOWED_ORIGINS: 'https://good.example' },
  ));

test.each([
  ['disabled', (id: string) => `disableUser(input: { userId: "${id}" })`, 401],
  ['a Viewer', (id: string) => `updateUser(input: { userId: "${id}", role: VIEWER })`, 403],
])('an upload whose user is %s before its last byte is refused, and leaves nothing', (_what, change, status) =>
  withServer(async ({ url, admin, as, graphql, dataDir }) => {
    const [token, asAdmin] = [await as('ENGINEER'), await admin()];
    const { data } = await graphql('{ viewer { id } }', {}, token);
    const loses = async () => {
      const { errors } = await graphql(`mutation { ${change(data.viewer.id)} { userErrors { message } } }`, {}, asAdmin);
      expect(errors).toBeUndefined();
    };
    const address = `${url}/uploads?filename=a.zip`;
    const headers = { 'content-length': '10' };
    expect((await send({ method: 'POST', address, token, headers, body: ['hello', loses, 'world'] })).status).toBe(status);
    expect(await withRows(dataDir, (db) => db.select().from(upload).all())).toEqual([]);
  }),
);

test('the role is read at each request: taken away, the upload cannot go on', () =>
  withServer(async ({ url, admin, as, graphql }) => {
    const token = await as('ENGINEER');
    const { address } = await create(url, token, 5);
    const users = await graphql('{ users { nodes { id name } } }', {}, await admin());
    const { id } = users.data.users.nodes.find((u: { name: string }) => u.name === 'engineer');
    const mutation = 'mutation ($i: UpdateUserInput!) { updateUser(input: $i) { userErrors { message } } }';
    await postGraphql(url, mutation, { i: { userId: id, role: 'VIEWER' } }, await admin());
    expect((await append(address, token, 0, ['hello'], 5)).status).toBe(403);
  }));
