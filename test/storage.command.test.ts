import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { and, isNull } from 'drizzle-orm';
import { afterEach, expect, test, vi } from 'vitest';
import { uploadFile } from '../client/upload.ts';
import { session } from '../src/accounts/tables.ts';
import { withSession } from '../src/cli/client.ts';
import { progressBar } from '../src/cli/progressBar.ts';
import { readClientConfig, readConfig } from '../src/config.ts';
import { upload } from '../src/storage/tables.ts';
import { type Child, type Exit, withChild, withServerProcess } from './support/process.ts';
import { adminName, adminPassword, withFolder, withServer } from './support/server.ts';
import { append, bytesOf, create, send, sha256, sizeOf, until, withRows } from './support/storage.ts';

const mebibyte = 1024 * 1024;
afterEach(() => void vi.useRealTimers());

/** Runs the command to its end; `result` is its last line of JSON. */
async function uploading(
  args: string[],
  env: Record<string, string>,
): Promise<Exit & { lines: string[]; result: Record<string, unknown> | null }> {
  return withChild(['src/main.ts', 'upload', ...args], env, async (child) => {
    const exit = await child.exit;
    const json = child.lines.find((line) => line.startsWith('{'));
    return { ...exit, lines: child.lines, result: json ? JSON.parse(json) : null };
  });
}

/** Per cent that the command's progress began with. */
const firstShare = (lines: string[]): number => Number(/^ *(\d+) %/.exec(lines.find((line) => line.includes('MiB/s')) ?? '')?.[1]);

async function withFile<T>(bytes: Buffer, use: (path: string) => Promise<T>): Promise<T> {
  return withFolder(async (folder) => {
    const path = join(folder, 'digits.zip');
    writeFileSync(path, bytes);
    return use(path);
  });
}

test('the command uploads a file, shows how far it is, and prints what a mutation needs', () =>
  withServer(async ({ url, as }) => {
    const bytes = bytesOf('command', 5 * mebibyte);
    const WHETSTONE_TOKEN = await as('ENGINEER');
    await withFile(bytes, async (path) => {
      const { code, lines, result } = await uploading([path, '--url', `${url}/`], { WHETSTONE_TOKEN });
      expect([code, result]).toEqual([0, { uploadId: expect.any(String), sha256: sha256(bytes), sizeBytes: bytes.length }]);
      expect(lines.some((line) => line.startsWith('100 %  5.0 of 5.0 MiB'))).toBe(true);
      const { json } = await send({ method: 'GET', address: `${url}/uploads/${result?.uploadId}`, token: WHETSTONE_TOKEN });
      expect(json).toMatchObject({ state: 'COMPLETE', fileName: 'digits.zip', sha256: sha256(bytes) });
      const relative = await uploading(['digits.zip'], { WHETSTONE_TOKEN, WHETSTONE_URL: url, INIT_CWD: join(path, '..') });
      expect(relative.result?.sha256).toBe(sha256(bytes));
    });
  }));

test('killed in the middle and run again, it goes on where it stopped', () =>
  withServer(async ({ url, admin, dataDir }) => {
    const bytes = bytesOf('killed client', 96 * mebibyte);
    const WHETSTONE_TOKEN = await admin();
    await withFile(bytes, async (path) => {
      await withChild(['src/main.ts', 'upload', path, '--url', url], { WHETSTONE_TOKEN }, async (child: Child) => {
        await until(async () => {
          const [row] = await withRows(dataDir, (db) => db.select().from(upload).all());
          return row !== undefined && sizeOf(join(dataDir, 'uploads', row.id)) > 12 * mebibyte;
        });
        child.kill('SIGKILL');
        await child.exit;
      });
      const [row] = await withRows(dataDir, (db) => db.select().from(upload).all());
      const { code, lines, result } = await uploading([path, '--url', url], { WHETSTONE_TOKEN });
      expect([code, result]).toEqual([0, { uploadId: row?.id, sha256: sha256(bytes), sizeBytes: bytes.length }]);
      expect(firstShare(lines)).toBeGreaterThanOrEqual(12);
    });
  }));

test('a server that is killed and started again under it costs nothing but time', () =>
  withFolder(async (WHETSTONE_DATA_DIR) => {
    const WHETSTONE_TOKEN = await withServer(({ admin }) => admin(), { WHETSTONE_DATA_DIR });
    const bytes = bytesOf('killed server', 96 * mebibyte);
    const env = { WHETSTONE_DATA_DIR };
    await withFile(bytes, async (path) => {
      let begun: ReturnType<typeof uploading> | undefined;
      const port = await withServerProcess(env, async (server) => {
        begun = uploading([path, '--url', server.url], { WHETSTONE_TOKEN });
        await until(async () => {
          const [row] = await withRows(WHETSTONE_DATA_DIR, (db) => db.select().from(upload).all());
          return row !== undefined && sizeOf(join(WHETSTONE_DATA_DIR, 'uploads', row.id)) > 12 * mebibyte;
        });
        server.kill('SIGKILL');
        await server.exit;
        return new URL(server.url).port;
      });
      await withServerProcess({ ...env, WHETSTONE_PORT: port }, async () => {
        expect(await begun).toMatchObject({ code: 0, result: { sha256: sha256(bytes), sizeBytes: bytes.length } });
      });
    });
  }));

test('an upload that was begun with another file of the same name and size starts again, and is right', () =>
  withServer(async ({ url, admin }) => {
    const token = await admin();
    const [old, current] = [bytesOf('old', mebibyte), bytesOf('current', mebibyte)];
    const { address, id } = await create(url, token, mebibyte);
    await append(address, token, 0, [old.subarray(0, 500_000)], 500_000);
    await withFile(current, async (path) => {
      const { code, result } = await uploading([path, '--url', url], { WHETSTONE_TOKEN: token });
      expect([code, result?.sha256]).toEqual([0, sha256(current)]);
      expect(result?.uploadId).not.toBe(id);
      expect((await send({ method: 'GET', address, token })).status).toBe(404);
    });
  }));

const silent = () => {};

/** Uploads in this process, as the command does. */
const uploadWith = (url: string, token: string | undefined, path: string) =>
  withSession({ url, token }, (session) => uploadFile(session, path, silent));

test('what goes wrong is one line that says what to do, and exit code 1', () =>
  withServer(
    async ({ url, as }) => {
      const token = await as('ENGINEER');
      await withFile(bytesOf('large', 2000), async (path) => {
        await expect(uploadWith(url, token, `${path}x`)).rejects.toThrow(`There is no file ${path}x.`);
        const folder = dirname(path);
        await expect(uploadWith(url, token, folder)).rejects.toThrow(
          `${folder} is a folder. Make a zip of it with \`python3 -m zipfile -c '${folder}.zip' '${folder}'\`, then upload ${folder}.zip.`,
        );
        await expect(uploadWith(url, 'x', path)).rejects.toThrow('access token is invalid');
        await expect(uploadWith(url, await as('VIEWER'), path)).rejects.toThrow('The role VIEWER does not allow this: it needs UPLOAD.');
        await expect(uploadWith('http://127.0.0.1:1', token, path)).rejects.toThrow('no server at http://127.0.0.1:1');
        await expect(uploadWith(url, token, path)).rejects.toThrow('Maximum size exceeded');
        const { code, lines } = await uploading([path, '--url', url], {});
        expect([code, lines]).toEqual([1, ['Set WHETSTONE_TOKEN to an API key or an access token, or run this at a terminal to log in.']]);
      });
    },
    { WHETSTONE_UPLOAD_BYTES_MAX: '1000' },
  ));

test('something else at the address is told apart from a Whetstone server', async () => {
  const other = createServer((_req, res) => res.end('<html>')).listen(0, '127.0.0.1');
  await once(other, 'listening');
  const url = `http://127.0.0.1:${(other.address() as AddressInfo).port}`;
  await withFile(Buffer.from('x'), (path) => expect(uploadWith(url, 'x', path)).rejects.toThrow('/uploads answered 200, but no JSON.'));
  other.close();
});

test('a file that changes while it is uploaded is not taken for another', () =>
  withServer(async ({ url, admin }) => {
    const token = await admin();
    await withFile(bytesOf('before', mebibyte), async (path) => {
      let writes = 0;
      const change = () => {
        writes += 1;
        writeFileSync(path, bytesOf(`after ${writes}`, mebibyte));
      };
      const uploaded = withSession({ url, token }, (session) => uploadFile(session, path, change));
      await expect(uploaded).rejects.toThrow('Does something change it?');
      const { json } = await send({ method: 'GET', address: `${url}/uploads`, token });
      expect(json.uploads).toEqual([]);
    });
  }));

test('a login is renewed before its token expires, and ended at the end', () =>
  withServer(async ({ url, admin, dataDir }) => {
    await admin();
    vi.useFakeTimers({ toFake: ['Date'] });
    const answers = [adminName, adminPassword];
    const live = () =>
      withRows(dataDir, (db) =>
        db
          .select()
          .from(session)
          .where(and(isNull(session.revokedAt), isNull(session.replacedById)))
          .all(),
      );
    const tokens = await withSession(
      { url, token: undefined },
      async ({ accessToken }) => {
        const first = await accessToken();
        vi.setSystemTime(Date.now() + 10 * 60_000);
        const same = await accessToken();
        vi.setSystemTime(Date.now() + 4.5 * 60_000);
        const second = await accessToken();
        expect(await live()).toHaveLength(2);
        return [first, same, second];
      },
      async () => answers.shift() as string,
    );
    expect(tokens[1]).toBe(tokens[0]);
    expect(tokens[2]).not.toBe(tokens[0]);
    expect(await live()).toHaveLength(1);
    const wrong = withSession(
      { url, token: undefined },
      async () => {},
      async () => 'wrong',
    );
    await expect(wrong).rejects.toThrow('The name or the password is wrong.');
  }));

/** Runs the command on a pseudo-terminal; types an answer when its question has appeared; returns all that the terminal showed. */
const typist = `
import json, os, pty, sys
answers = json.loads(sys.argv[1])
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
shown = ""
while True:
    try:
        piece = os.read(terminal, 4096)
    except OSError:
        break
    if not piece:
        break
    shown += piece.decode(errors="replace")
    if answers and answers[0][0] in shown:
        os.write(terminal, (answers.pop(0)[1] + "\\r").encode())
print(json.dumps({"shown": shown, "code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}))
`;

async function atTerminal(answers: [string, string][], args: string[]): Promise<{ shown: string; code: number }> {
  const command = [process.execPath, 'src/main.ts', 'upload', ...args];
  const child = spawn('python3', ['-c', typist, JSON.stringify(answers), ...command], {
    cwd: join(import.meta.dirname, '..'),
    env: { PATH: process.env.PATH ?? '', TERM: 'xterm' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (piece) => {
    output += piece;
  });
  try {
    await once(child, 'close');
  } finally {
    child.kill();
  }
  return JSON.parse(output);
}

test('without a token it asks for name and password, shows no password, draws a bar, and ends its login', () =>
  withServer(async ({ url, admin, dataDir }) => {
    await admin();
    await withFile(bytesOf('terminal', mebibyte), async (path) => {
      const questions: [string, string][] = [
        ['Name: ', adminName],
        ['Password: ', adminPassword],
      ];
      const { shown, code } = await atTerminal(questions, [path, '--url', url]);
      expect(code).toBe(0);
      expect(shown).toContain(sha256(bytesOf('terminal', mebibyte)));
      expect(shown).toContain(`\r[${'#'.repeat(30)}] 100 %`);
      expect(shown).not.toContain(adminPassword);
      const live = await withRows(dataDir, (db) =>
        db
          .select()
          .from(session)
          .all()
          .filter((row) => row.revokedAt === null),
      );
      expect(live).toHaveLength(1);
      const wrong = await atTerminal([questions[0] as [string, string], ['Password: ', 'wrong']], [path, '--url', url]);
      expect([wrong.code, wrong.shown]).toEqual([1, expect.stringContaining('The name or the password is wrong.')]);
    });
  }));

test('the bar says nothing twice where it cannot be drawn in place', () => {
  const lines: string[] = [];
  const bar = progressBar({ isTTY: false, write: (line: string) => lines.push(line) } as unknown as NodeJS.WriteStream);
  for (const done of [0, 1, 5, 10, 11, 55, 100]) bar.show(done * mebibyte, 100 * mebibyte);
  bar.end();
  expect(lines.map((line) => line.slice(0, 5))).toEqual(['  0 %', ' 10 %', ' 55 %', '100 %']);
});

test('the settings of a client are not the server’s, and neither minds the other’s', () => {
  expect(readClientConfig({ WHETSTONE_TOKEN: 't', WHETSTONE_SLOTS: 'none of its business', INIT_CWD: '/x' })).toEqual({
    url: 'http://127.0.0.1:8080',
    token: 't',
    folder: '/x',
  });
  expect(readConfig({ WHETSTONE_TOKEN: 't', WHETSTONE_URL: 'http://x' })).not.toHaveProperty('token');
  expect(() => readClientConfig({ WHETSTONE_TOKN: 't' })).toThrow('WHETSTONE_TOKN is not a setting');
  expect(() => readConfig({ WHETSTONE_UPLOAD_BYTES_MAX: '0' })).toThrow('WHETSTONE_UPLOAD_BYTES_MAX');
});
