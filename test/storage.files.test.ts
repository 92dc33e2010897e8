import { readdirSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { get, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { eq } from 'drizzle-orm';
import fc from 'fast-check';
import { afterEach, expect, test, vi } from 'vitest';
import { insertArtifact, placingBlobs, storeFile } from '../src/storage/blobs.ts';
import { rangeOf } from '../src/storage/files.ts';
import { downloadUrl, readLinkKey, thumbnailUrl } from '../src/storage/links.ts';
import { type Artifact, artifact } from '../src/storage/tables.ts';
import { type TestServer, viewerOf, withFolder, withServer } from './support/server.ts';
import { bytesOf, send, sha256, until, withRows } from './support/storage.ts';

const bytes = bytesOf('file', 100_000);
const hash = sha256(bytes);

afterEach(() => void vi.useRealTimers());

interface Links {
  found: Artifact;
  download: () => string;
  thumbnail: (offset: number, sizeBytes: number) => string;
}

/** Stores bytes beside the running server, and gives the links that the server would. */
async function stored(server: TestServer, kind: Artifact['kind'] = 'DATASET_ZIP', name = 'digits.zip', content = bytes): Promise<Links> {
  const { url, dataDir } = server;
  const path = join(dataDir, 'made');
  writeFileSync(path, content);
  const found = await withRows(dataDir, async (db) => {
    const blob = await placingBlobs(() => storeFile({ config: { dataDir }, db }, path));
    return insertArtifact(db, blob, { ownerType: 'DATASET_VERSION', ownerId: 'version', kind, name });
  });
  const services = { config: { publicUrl: undefined }, linkKey: readLinkKey(dataDir), viewer: await viewerOf(server) };
  return {
    found,
    download: () => url + downloadUrl(services, found),
    thumbnail: (offset, sizeBytes) => url + thumbnailUrl(services, found, offset, sizeBytes),
  };
}

test('a link downloads the file without a token, as an attachment that no browser takes for a page', () =>
  withServer(async (server) => {
    const page = Buffer.from('<script>alert(document.domain)</script>');
    const { download } = await stored(server, 'DATASET_ZIP', 'page.html', page);
    const response = await fetch(download());
    expect(response.status).toBe(200);
    expect(await response.text()).toBe(String(page));
    const header = (name: string) => response.headers.get(name);
    expect(header('content-disposition')).toBe(`attachment; filename="page.html"; filename*=UTF-8''page.html`);
    expect(header('content-type')).toBe('application/octet-stream');
    expect(header('x-content-type-options')).toBe('nosniff');
    expect(header('content-security-policy')).toBe("default-src 'none'; frame-ancestors 'none'; sandbox");
    expect(header('content-length')).toBe(String(page.length));
    expect(header('etag')).toBe(`"${sha256(page)}"`);
    expect(header('cache-control')).toMatch(/^private, max-age=\d+, immutable$/);
  }));

test('any name can be sent, and none breaks out of the header', () =>
  withServer(async (server) => {
    const { download } = await stored(server, 'DATASET_ZIP', 'größe "1"\r\nX-Evil: 1 (\'*).zip');
    const response = await fetch(download());
    expect(response.headers.get('x-evil')).toBeNull();
    const disposition = response.headers.get('content-disposition') as string;
    expect(disposition).toMatch(/^attachment; filename="[\w.-]+"; filename\*=UTF-8''[\w.%-]+$/);
    expect(decodeURIComponent(disposition.split("''")[1] as string)).toBe('größe "1"\r\nX-Evil: 1 (\'*).zip');
  }));

test('ranges and conditions: parts, resumed downloads, unchanged copies', () =>
  withServer(async (server) => {
    const { download } = await stored(server);
    const ask = async (headers: Record<string, string>, method = 'GET') => {
      const response = await fetch(download(), { method, headers });
      const body = Buffer.from(await response.arrayBuffer());
      return {
        status: response.status,
        body,
        range: response.headers.get('content-range'),
        length: response.headers.get('content-length'),
      };
    };
    expect(await ask({ range: 'bytes=10-19' })).toMatchObject({ status: 206, body: bytes.subarray(10, 20), range: 'bytes 10-19/100000' });
    expect(await ask({ range: 'bytes=99990-' })).toMatchObject({ status: 206, body: bytes.subarray(99_990) });
    expect(await ask({ range: 'bytes=-5' })).toMatchObject({ status: 206, body: bytes.subarray(-5), range: 'bytes 99995-99999/100000' });
    expect(await ask({ range: 'bytes=100000-' })).toMatchObject({ status: 416, range: 'bytes */100000' });
    expect((await ask({ range: 'bytes=0-1,5-6' })).body.equals(bytes)).toBe(true);
    expect(await ask({ range: 'bytes=0-9', 'if-range': `"${hash}"` })).toMatchObject({ status: 206 });
    expect(await ask({ range: 'bytes=0-9', 'if-range': '"another"' })).toMatchObject({ status: 200 });
    expect(await ask({ 'if-none-match': `W/"other", "${hash}"` })).toMatchObject({ status: 304, body: Buffer.alloc(0) });
    expect(await ask({}, 'HEAD')).toMatchObject({ status: 200, body: Buffer.alloc(0), length: '100000' });
    expect(await ask({}, 'DELETE')).toMatchObject({ status: 405 });
  }));

test('a range is inside the file, or unsatisfiable, or none (RFC 9110)', () => {
  expect(['bytes=-0', 'bytes=5-', 'bytes=-7'].map((header) => rangeOf(header, 0))).toEqual([
    'unsatisfiable',
    'unsatisfiable',
    'unsatisfiable',
  ]);
  expect([undefined, '', 'bytes=-', 'bytes=2-1', 'items=0-1', 'bytes=a-b'].map((header) => rangeOf(header, 10))).toEqual(
    Array(6).fill(null),
  );
  const number = fc.oneof(fc.nat(30), fc.constant(''), fc.constant(Number.MAX_SAFE_INTEGER));
  fc.assert(
    fc.property(number, number, fc.integer({ min: 1, max: 20 }), (first, last, size) => {
      const range = rangeOf(`bytes=${first}-${last}`, size);
      if (range === null || range === 'unsatisfiable') return;
      expect(0 <= range.start && range.start <= range.end && range.end < size).toBe(true);
    }),
  );
});

test('a link that was changed, has expired, or is for another file is 403', () =>
  withServer(async (server) => {
    const first = await stored(server);
    const second = await stored(server, 'DATASET_ZIP', 'b.zip', Buffer.from('other'));
    const link = new URL(first.download());
    const changed = (edit: (url: URL) => void) => {
      const url = new URL(link);
      edit(url);
      return url.href;
    };
    const bad = [
      changed((url) => url.searchParams.delete('signature')),
      changed((url) => url.searchParams.set('signature', '')),
      changed((url) => url.searchParams.set('signature', 'A'.repeat(43))),
      changed((url) => url.searchParams.set('expires', String(Number(url.searchParams.get('expires')) + 1))),
      changed((url) => url.searchParams.set('expires', 'NaN')),
      changed((url) => url.searchParams.delete('expires')),
      changed((url) => url.searchParams.set('session', 'another')),
      changed((url) => {
        url.pathname = new URL(second.download()).pathname;
      }),
      changed((url) => {
        url.pathname += '/0-10';
      }),
      changed((url) => {
        url.pathname = `/files/../files/${first.found.id}%2f`;
      }),
    ];
    for (const address of bad) {
      const reply = await send({ method: 'GET', address });
      expect([address, reply.status, reply.json.errors[0].extensions.code]).toEqual([address, 403, 'FORBIDDEN']);
    }
    // A token does not help: the link is the permission.
    expect((await send({ method: 'GET', address: bad[0] as string, token: await server.admin() })).status).toBe(403);
    expect((await send({ method: 'GET', address: link.href })).status).toBe(200);
  }));

test('a link lives for 10 to 20 minutes, and is the same for a while, so that browsers keep their copy', () =>
  withServer(async (server) => {
    const { download } = await stored(server);
    vi.useFakeTimers({ toFake: ['Date'] });
    const start = Math.ceil(Date.now() / 600_000) * 600_000 + 1;
    vi.setSystemTime(start);
    const link = download();
    vi.setSystemTime(start + 599_000);
    expect(download()).toBe(link);
    expect((await fetch(link)).status).toBe(200);
    vi.setSystemTime(start + 1_199_000);
    expect(download()).not.toBe(link);
    expect((await fetch(link)).status).toBe(200);
    vi.setSystemTime(start + 1_200_001);
    expect((await fetch(link)).status).toBe(403);
  }));

test.each([
  ['disabled', 'mutation ($id: ID!) { disableUser(input: { userId: $id }) { userErrors { code } } }'],
  [
    'given another password',
    'mutation ($id: ID!) { resetPassword(input: { userId: $id, password: "another password" }) { userErrors { code } } }',
  ],
])('the links of a user end when they are %s', (_what, change) =>
  withServer(async (server) => {
    const admin = await server.admin();
    const { data } = await server.graphql('{ viewer { id } }', {}, await server.as('VIEWER'));
    const { found } = await stored(server);
    const links = { config: { publicUrl: undefined }, linkKey: readLinkKey(server.dataDir) };
    const link = server.url + downloadUrl({ ...links, viewer: await viewerOf(server, 'VIEWER') }, found);
    expect((await fetch(link)).status).toBe(200);
    expect((await server.graphql(change, { id: data.viewer.id }, admin)).errors).toBeUndefined();
    expect((await fetch(link)).status).toBe(403);
  }),
);

test('a link to what was deleted is 404', () =>
  withServer(async (server) => {
    const { found, download } = await stored(server);
    await withRows(server.dataDir, (db) => db.delete(artifact).where(eq(artifact.id, found.id)).run());
    expect((await send({ method: 'GET', address: download() })).json.errors[0].extensions.code).toBe('NOT_FOUND');
  }));

test('a thumbnail is a signed slice, an image for <img> that a browser may keep', () =>
  withServer(async (server) => {
    const { thumbnail } = await stored(server, 'THUMBNAILS', 'thumbnails');
    const response = await fetch(thumbnail(1000, 50));
    expect(Buffer.from(await response.arrayBuffer()).equals(bytes.subarray(1000, 1050))).toBe(true);
    expect(response.headers.get('content-type')).toBe('image/webp');
    expect(response.headers.get('content-disposition')).toBeNull();
    expect(response.headers.get('content-security-policy')).toContain('sandbox');
    expect(response.headers.get('x-content-type-options')).toBe('nosniff');
    const again = await fetch(thumbnail(1000, 50), { headers: { 'if-none-match': response.headers.get('etag') as string } });
    expect(again.status).toBe(304);
    for (const [offset, size] of [
      [99_990, 11],
      [100_000, 1],
      [0, 0],
    ] as const) {
      expect((await fetch(thumbnail(offset, size))).status).toBe(404);
    }
  }));

test('only thumbnails are shown as images', () =>
  withServer(async (server) => {
    const { thumbnail } = await stored(server, 'DATASET_ZIP');
    expect((await fetch(thumbnail(0, 10))).status).toBe(404);
  }));

test.runIf(process.platform === 'linux')('a reader that does not read holds the file back, and one that goes away closes it', () =>
  withServer(async (server) => {
    const large = Buffer.alloc(64 * 1024 * 1024, 7);
    const { found, download } = await stored(server, 'DATASET_ZIP', 'large.zip', large);
    // The server runs in this process: its files and its reads are this process's.
    const isOpen = () => readdirSync('/proc/self/fd').some((fd) => linkOf(`/proc/self/fd/${fd}`).endsWith(found.sha256));
    const reads = () => process.getActiveResourcesInfo().filter((name) => name === 'FSReqCallback').length;
    const before = process.memoryUsage().arrayBuffers;
    const incoming = await new Promise<IncomingMessage>((resolve) => get(download(), { agent: false }, resolve));
    await until(() => isOpen() && reads() === 0);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(32 * 1024 * 1024);
    incoming.destroy();
    await until(() => !isOpen());
    expect((await (await fetch(download())).arrayBuffer()).byteLength).toBe(large.length);
  }),
);

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}

test('the key of the links is its owner’s only, stays over restarts, and a damaged one is said', () =>
  withFolder(async (dataDir) => {
    const key = readLinkKey(dataDir);
    expect(statSync(join(dataDir, 'link-key')).mode & 0o777).toBe(0o600);
    expect(readLinkKey(dataDir).equals(key)).toBe(true);
    writeFileSync(join(dataDir, 'link-key'), 'short');
    expect(() => readLinkKey(dataDir)).toThrow('damaged');
  }));

test('links stand behind the public URL', () => {
  const services = {
    config: { publicUrl: 'https://lab.example/w' },
    linkKey: Buffer.alloc(32),
    viewer: { by: 'SESSION', familyId: 'f1' } as const,
  };
  expect(downloadUrl(services, { id: 'a1' })).toMatch(/^https:\/\/lab\.example\/w\/files\/a1\?expires=\d+&session=f1&signature=[\w-]{43}$/);
  expect(thumbnailUrl(services, { id: 'a1' }, 5, 7)).toMatch(/^https:\/\/lab\.example\/w\/files\/a1\/5-7\?/);
});
