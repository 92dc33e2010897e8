import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { backUp } from '../src/backup/backup.ts';
import { restore } from '../src/backup/restore.ts';
import { verify } from '../src/backup/verify.ts';
import { takeLock } from '../src/db.ts';
import { collectBlobs } from '../src/storage/blobs.ts';
import { makeBenchmarkModels } from './support/benchmark.ts';
import { adminName, adminPassword, type TestServer, withFolder, withServer } from './support/server.ts';
import { fillDisk, mebibyte, unmountable, withSmallDisk } from './support/smallDisk.ts';
import { blobOf, blobsOf, until } from './support/storage.ts';
import { ask, modelVersionOf, uploaded } from './support/training.ts';

const root = join(import.meta.dirname, '..');
const models = makeBenchmarkModels();

/** A command of the product, as a user runs it. */
const whetstone = (args: string[], env: Record<string, string> = {}) =>
  promisify(execFile)(process.execPath, ['src/main.ts', ...args], { cwd: root, env: { ...process.env, ...env } }).then(
    ({ stdout }) => ({ code: 0, stdout, stderr: '' }),
    ({ code, stdout, stderr }) => ({ code: Number(code), stdout: String(stdout), stderr: String(stderr) }),
  );

const apiOf = async (server: TestServer) => ({ url: server.url, token: await server.admin() });

/** A server with one upload of some bytes, and a folder for backups. */
const withUpload = (use: (server: TestServer, folder: string, sha256: string) => Promise<void>) =>
  withFolder((folder) =>
    withServer(async (server) => {
      const { sha256 } = await uploaded(await apiOf(server), 'a.bin', Buffer.from('some bytes'));
      await use(server, folder, sha256);
    }),
  );

test('a backup beside a server that is written to holds what was acknowledged before; restored elsewhere, it serves the same', () =>
  withFolder((folder) =>
    withServer(async (server) => {
      const api = await apiOf(server);
      const version = await modelVersionOf(api, 'classifier', join(models, 'classifier.onnx'));
      const acknowledged: string[] = [];
      let isWriting = true;
      const writer = (async () => {
        while (isWriting) acknowledged.push((await uploaded(api, 'a.bin', Buffer.from(`upload ${acknowledged.length}`))).sha256);
      })();
      await until(() => acknowledged.length > 20);
      const before = [...acknowledged];
      const { code, stdout } = await whetstone(['backup', folder], { WHETSTONE_DATA_DIR: server.dataDir });
      isWriting = false;
      await writer;
      expect(code).toBe(0);
      expect(acknowledged.length).toBeGreaterThan(before.length);
      const backup = stdout.split('\n')[0] as string;

      const dataDir = join(folder, 'restored data');
      const restored = await whetstone(['restore', backup, dataDir]);
      expect(restored).toMatchObject({ code: 0, stdout: expect.stringContaining('Restored') });
      expect(await verify(dataDir)).toMatchObject({ problems: [], unnamed: 0 });
      expect(blobsOf(dataDir)).toEqual(expect.arrayContaining(before));
      const query = 'query ($id: ID!) { node(id: $id) { ... on ModelVersion { state sha256 lineageHash } } }';
      const wanted = (await ask(api, query, { id: version })).data;
      await withServer(
        async (other) => {
          const { accessToken: token } = await other.login(adminName, adminPassword);
          expect((await ask({ url: other.url, token }, query, { id: version })).data).toEqual(wanted);
        },
        { WHETSTONE_DATA_DIR: dataDir },
      );
    }),
  ));

test('a second backup copies only what is new; `--keep` removes older ones, and what none of the others names', () =>
  withUpload(async (server, folder, first) => {
    const one = await backUp(server.dataDir, folder);
    expect(one).toMatchObject({ blobs: 1, newBytes: 10, removed: [] });
    // Both names of the same bytes, where the disk has hard links.
    expect(statSync(blobOf(folder, first)).ino).toBe(statSync(blobOf(server.dataDir, first)).ino);
    const log = join(server.dataDir, 'logs', 'job.jsonl');
    mkdirSync(dirname(log), { recursive: true });
    writeFileSync(log, 'a line\n');
    const two = await backUp(server.dataDir, folder);
    expect(two).toMatchObject({ blobs: 1, newBytes: 0 });
    const three = await backUp(server.dataDir, folder);
    appendFileSync(log, 'another\n');
    const four = await backUp(server.dataDir, folder);
    const nodeOf = ({ path }: { path: string }) => statSync(join(path, 'logs', 'job.jsonl')).ino;
    expect(nodeOf(three)).toBe(nodeOf(two));
    expect(nodeOf(four)).not.toBe(nodeOf(three));
    expect(readFileSync(join(three.path, 'logs', 'job.jsonl'), 'utf8')).toBe('a line\n');
    for (const { path } of [two, three]) rmSync(path, { recursive: true });
    server.services.db.$client.exec('DELETE FROM artifact');
    expect(await collectBlobs({ config: { dataDir: server.dataDir }, db: server.services.db }, Date.now() + 48 * 3_600_000)).toBe(1);
    const { sha256 } = await uploaded(await apiOf(server), 'b.bin', Buffer.from('others'));
    expect(await backUp(server.dataDir, folder, { keep: 2 })).toMatchObject({ blobs: 1, newBytes: 6, removed: [one.path] });
    expect(blobsOf(folder).sort()).toEqual([first, sha256].sort());
    const { path } = await backUp(server.dataDir, folder, { keep: 1 });
    expect(blobsOf(folder)).toEqual([sha256]);
    expect(await verify(path)).toMatchObject({ problems: [], blobs: 1 });
  }));

test('keys go along only when they are asked for', () =>
  withUpload(async (server, folder) => {
    expect(readdirSync((await backUp(server.dataDir, folder)).path).sort()).toEqual(['audit', 'logs', 'manifest.json', 'whetstone.db']);
    expect(readdirSync((await backUp(server.dataDir, folder, { keys: true })).path)).toEqual(
      expect.arrayContaining(['link-key', 'signing-key.pem']),
    );
  }));

describe('a damaged backup', () => {
  test.each<[string, (path: string, blob: string) => void, string]>([
    ['a flipped byte of a stored file', (_path, blob) => rewrite(blob, Buffer.from('some bytez')), 'has other bytes than its SHA-256 says'],
    ['a stored file that is cut', (_path, blob) => rewrite(blob, Buffer.from('some')), 'has 4 bytes instead of 10'],
    ['a stored file that is gone', (_path, blob) => renameSync(blob, `${blob}.away`), 'is missing'],
    ['a flipped byte of the database', (path) => flip(join(path, 'whetstone.db')), 'The whetstone.db has other bytes'],
    ['a database that is none', (path) => writeFileSync(join(path, 'whetstone.db'), 'nothing'), 'The database cannot be read'],
  ])('with %s: `verify` says so, and `restore` writes nothing', (_what, damage, message) =>
    withUpload(async (server, folder, sha256) => {
      const { path } = await backUp(server.dataDir, folder);
      damage(path, blobOf(folder, sha256));
      const verified = await whetstone(['verify', path]);
      expect(verified).toMatchObject({ code: 1, stdout: expect.stringContaining(message) });
      expect(verified.stdout).toContain('Damaged: ');
      const target = join(folder, 'new');
      await expect(restore(path, target)).rejects.toThrow(message);
      expect(existsSync(target)).toBe(false);
    }),
  );
});

test('a damaged stored file can be left out of a restore: everything else is there, and what is missing has a name', () =>
  withUpload(async (server, folder, sha256) => {
    const { sha256: other } = await uploaded(await apiOf(server), 'b.bin', Buffer.from('others'));
    const { path } = await backUp(server.dataDir, folder);
    rewrite(blobOf(folder, sha256), Buffer.from('some bytez'));
    const target = join(folder, 'new');
    await expect(restore(path, target)).rejects.toThrow('With `--without-damaged` everything else is restored.');
    const restored = await whetstone(['restore', '--without-damaged', path, target]);
    expect(restored).toMatchObject({
      code: 0,
      stdout: expect.stringContaining(`Left out, since they are damaged: ${sha256}\nRestored 1 files`),
    });
    expect(await verify(target)).toMatchObject({ problems: [`The blob ${sha256} is missing.`], damaged: [sha256], blobs: 2 });
    expect(readFileSync(blobOf(target, other), 'utf8')).toBe('others');
    flip(join(path, 'whetstone.db'));
    await expect(restore(path, join(folder, 'none'), { withoutDamaged: true })).rejects.toThrow('nothing was written');
  }));

describe('what is damaged in the folder of backups or in the data folder', () => {
  /** Some bytes whose hash begins with a digit: the first backup reads those with 0, the next those with 1. */
  const bytesWith = (digit: string): Buffer => {
    for (let n = 0; ; n += 1) {
      const bytes = Buffer.from(`bytes ${n}`);
      if (createHash('sha256').update(bytes).digest('hex').startsWith(digit)) return bytes;
    }
  };
  const sameSize = (bytes: Buffer): Buffer => Buffer.concat([bytes.subarray(1), Buffer.from('x')]);
  const withBlob = (
    use: (of: { dataDir: string; folder: string; sha256: string; bytes: Buffer; copy: string; original: string }) => Promise<void>,
  ) =>
    withFolder((folder) =>
      withServer(async (server) => {
        const bytes = bytesWith('1');
        const { sha256 } = await uploaded(await apiOf(server), 'a.bin', bytes);
        const { dataDir } = server;
        await use({ dataDir, folder, sha256, bytes, copy: blobOf(folder, sha256), original: blobOf(dataDir, sha256) });
      }),
    );

  test('a damaged copy of the same size is found when its digit is due, and copied again from the whole original', () =>
    withBlob(async ({ dataDir, folder, sha256, bytes, copy }) => {
      expect(await backUp(dataDir, folder)).toMatchObject({ repaired: 0, damaged: [] });
      rewrite(copy, sameSize(bytes));
      const { path, ...made } = await backUp(dataDir, folder);
      expect(made).toMatchObject({ newBytes: 0, repaired: 1, damaged: [] });
      expect(await verify(path)).toMatchObject({ problems: [] });
      // Its turn comes again after those of the 15 other digits, however the earlier manifests are.
      rewrite(copy, sameSize(bytes));
      expect(await backUp(dataDir, folder)).toMatchObject({ repaired: 0 });
      const newest = await backUp(dataDir, folder);
      const manifest = JSON.parse(readFileSync(join(newest.path, 'manifest.json'), 'utf8'));
      expect(manifest.checks).toEqual({ digit: 3, damaged: [] });
      writeFileSync(join(newest.path, 'manifest.json'), JSON.stringify({ ...manifest, checks: { digit: 15, damaged: [] } }));
      expect(await backUp(dataDir, folder)).toMatchObject({ repaired: 0 });
      expect(await backUp(dataDir, folder)).toMatchObject({ repaired: 1 });
      // A manifest of an earlier version, and one that cannot be read.
      for (const text of [JSON.stringify({ ...manifest, checks: undefined }), 'no manifest']) {
        const { path: last } = await backUp(dataDir, folder);
        writeFileSync(join(last, 'manifest.json'), text);
        expect(JSON.parse(readFileSync(join((await backUp(dataDir, folder)).path, 'manifest.json'), 'utf8')).checks.digit).toBe(0);
      }
      expect(blobsOf(folder)).toContain(sha256);
    }));

  test('one file with two names is damaged in both: it is named with exit code 1 until a whole one is there, and nothing is copied over it', () =>
    withBlob(async ({ dataDir, folder, sha256, bytes, copy, original }) => {
      await backUp(dataDir, folder);
      expect(statSync(copy).ino).toBe(statSync(original).ino);
      writeFileSync(original, sameSize(bytes));
      const run = await whetstone(['backup', folder], { WHETSTONE_DATA_DIR: dataDir });
      expect(run).toMatchObject({ code: 1, stderr: expect.stringContaining(`npm run verify -- '${dataDir}'`) });
      expect(run.stderr).toContain(sha256);
      const path = run.stdout.split('\n')[0] as string;
      expect((await verify(path)).problems).toEqual([`The blob ${sha256} has other bytes than its SHA-256 says.`]);
      // Though other digits are due now.
      const again = await whetstone(['backup', folder, '--json'], { WHETSTONE_DATA_DIR: dataDir });
      expect(again.code).toBe(1);
      expect(JSON.parse(again.stdout)).toMatchObject({ repaired: 0, damaged: [sha256] });
      // A whole copy in the folder of backups alone does not mend the data folder.
      rewrite(copy, bytes);
      expect(await backUp(dataDir, folder)).toMatchObject({ repaired: 0, damaged: [sha256] });
      rewrite(original, bytes);
      expect(await backUp(dataDir, folder)).toMatchObject({ repaired: 0, damaged: [] });
    }));

  test('a file of the data folder that was cut is named, whether or not there is a whole copy', () =>
    withBlob(async ({ dataDir, folder, sha256, bytes, copy, original }) => {
      rewrite(original, bytes.subarray(1));
      expect(await backUp(dataDir, folder)).toMatchObject({ newBytes: 0, repaired: 0, damaged: [sha256] });
      expect(existsSync(copy)).toBe(false);
      rewrite(original, bytes);
      expect(await backUp(dataDir, folder)).toMatchObject({ newBytes: bytes.length, repaired: 0, damaged: [] });
      rewrite(original, bytes.subarray(1));
      expect(await backUp(dataDir, folder)).toMatchObject({ repaired: 0, damaged: [sha256] });
      expect(readFileSync(copy)).toEqual(bytes);
    }));

  test('a backup whose database cannot be read keeps neither the next one from being made, nor older ones from being removed', () =>
    withBlob(async ({ dataDir, folder }) => {
      const [first, second] = [await backUp(dataDir, folder), await backUp(dataDir, folder)];
      writeFileSync(join(second.path, 'whetstone.db'), 'nothing');
      expect(await backUp(dataDir, folder, { keep: 2 })).toMatchObject({ damaged: [], removed: [first.path] });
    }));

  test('a data folder without stored files', () =>
    withFolder((folder) =>
      withServer(async ({ dataDir }) => {
        const { path } = await backUp(dataDir, folder);
        expect(await backUp(dataDir, folder, { keep: 1 })).toMatchObject({ blobs: 0, removed: [path] });
      }),
    ));
});

/** Its own bytes: the data folder may have a link to the old ones. */
function rewrite(path: string, bytes: Buffer): void {
  rmSync(path);
  writeFileSync(path, bytes);
}

function flip(path: string): void {
  const bytes = readFileSync(path);
  bytes[bytes.length - 10] = (bytes[bytes.length - 10] as number) ^ 1;
  writeFileSync(path, bytes);
}

test('`verify` of a data folder names what is missing, and counts what nothing uses', () =>
  withUpload(async (server, folder, sha256) => {
    expect(await whetstone(['verify', server.dataDir])).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('Whole: the database and 1 files'),
    });
    const blob = blobOf(server.dataDir, sha256);
    mkdirSync(join(server.dataDir, 'blobs', '00'), { recursive: true });
    renameSync(blob, blobOf(server.dataDir, `00${sha256.slice(2)}`));
    expect(await verify(server.dataDir)).toMatchObject({ problems: [`The blob ${sha256} is missing.`], unnamed: 1 });
    expect(await backUp(server.dataDir, folder)).toMatchObject({ blobs: 1, newBytes: 0, damaged: [sha256] });
  }));

describe('is refused with what is wrong:', () => {
  test('a folder of backups inside of the data folder', () =>
    withUpload(async ({ dataDir }) => {
      await expect(backUp(dataDir, join(dataDir, 'backups'))).rejects.toThrow('inside of the data folder');
    }));

  test('a data folder without a database', () =>
    withFolder((folder) => expect(backUp(join(folder, 'none'), join(folder, 'backups'))).rejects.toThrow('holds no database')));

  test('a second backup to the same folder at the same time', () =>
    withUpload(async ({ dataDir }, folder) => {
      const unlock = takeLock(join(folder, 'backup.lock'), '');
      const refused = { code: 1, stderr: expect.stringContaining('Another backup is being written') };
      expect(await whetstone(['backup', folder], { WHETSTONE_DATA_DIR: dataDir })).toMatchObject(refused);
      unlock();
      await backUp(dataDir, folder);
    }));

  test('a restore of what is no backup, to a folder that is not empty, or of a newer version', () =>
    withUpload(async ({ dataDir }, folder) => {
      const { path } = await backUp(dataDir, folder);
      await expect(restore(folder, join(folder, 'new'))).rejects.toThrow('no finished backup');
      await expect(restore(path, dataDir)).rejects.toThrow('is not empty');
      const manifest = JSON.parse(readFileSync(join(path, 'manifest.json'), 'utf8'));
      writeFileSync(join(path, 'manifest.json'), JSON.stringify({ ...manifest, migrations: 1000, codeVersion: '9.9.9' }));
      await expect(restore(path, join(folder, 'new'))).rejects.toThrow('Whetstone 9.9.9, which is newer');
    }));

  test('a number of backups that is none', async () => {
    expect(await whetstone(['backup', '/tmp', '--keep', '0'])).toMatchObject({ code: 2, stderr: expect.stringContaining('from 1 to') });
  });
});

test.skipIf(unmountable)(`on a full disk a backup says so, and earlier ones stay whole ${unmountable ?? ''}`, () =>
  withUpload((server) =>
    withSmallDisk(16 * mebibyte, async (disk) => {
      const { path } = await backUp(server.dataDir, disk);
      await uploaded(await apiOf(server), 'large.bin', Buffer.alloc(mebibyte, 1));
      const free = fillDisk(disk, mebibyte / 2);
      await expect(backUp(server.dataDir, disk)).rejects.toThrow(/is full|are needed/);
      expect(readdirSync(disk).filter((name) => name.includes('unfinished'))).toEqual([]);
      expect(await verify(path)).toMatchObject({ problems: [] });
      free();
      await backUp(server.dataDir, disk);
    }),
  ),
);
