import { getVariableValues, type OperationDefinitionNode, parse, validate } from 'graphql';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { Example } from '../src/graphql/graphiql/examples/example.ts';
import { examples } from '../src/graphql/graphiql/examples.ts';
import { checkDocument, parseLimited } from '../src/graphql/limits.ts';
import { schema } from '../src/graphql/schema.ts';
import { attempt } from '../src/jobs/tables.ts';
import { executablePath, launchBrowser, whyNoBrowser } from './support/browser.ts';
import { digitFolders, zipOf } from './support/images.ts';
import { adminName, adminPassword, type TestServer, withServer } from './support/server.ts';
import type { Message } from './support/socket.ts';
import { post, withRows } from './support/storage.ts';

const pageHeaders = { accept: 'text/html,application/xhtml+xml', 'accept-encoding': 'gzip, deflate, br' };

describe('the examples', () => {
  const operations = examples.map(({ query }) => parse(query).definitions[0] as OperationDefinitionNode);

  test('have names of their own: the titles of the tabs', () => {
    const names = operations.map(({ name }) => name?.value);
    expect(names).not.toContain(undefined);
    expect(new Set(names).size).toBe(names.length);
  });

  test.each(examples.map((example, i) => [operations[i]?.name?.value, example] as const))(
    '%s fits the schema and the limits',
    (_n, { query, variables }) => {
      const document = parseLimited(query);
      expect(validate(schema, document)).toEqual([]);
      checkDocument(schema, document, variables);
      const [operation] = document.definitions as OperationDefinitionNode[];
      const values = getVariableValues(schema, operation?.variableDefinitions ?? [], variables ?? {});
      expect('errors' in values ? values.errors : []).toEqual([]);
    },
  );
});

describe('what is served', () => {
  const pageOf = async (url: string) => {
    const response = await fetch(`${url}/graphql`, { headers: pageHeaders });
    const html = await response.text();
    const paths = [...html.matchAll(/(?:src|href)="(graphiql\/[^"]+)"/g)].map(([, path]) => `${url}/${path}`);
    return { response, html, paths };
  };

  test('a browser gets the page, a program the API', () =>
    withServer(async ({ url }) => {
      const { response, paths } = await pageOf(url);
      expect(response.headers.get('content-type')).toBe('text/html; charset=utf-8');
      expect(response.headers.get('vary')).toContain('Accept');
      expect(paths.length).toBeGreaterThan(4);
      const program = await fetch(`${url}/graphql?query={viewer{name}}`, { headers: { accept: 'application/json' } });
      expect(await program.json()).toEqual({ data: { viewer: null } });
    }));

  test('nothing is inline, nothing comes from elsewhere, and the browser is told so', () =>
    withServer(async ({ url }) => {
      const { response, html, paths } = await pageOf(url);
      const policy = response.headers.get('content-security-policy') ?? '';
      expect(policy).toContain("default-src 'none'; script-src 'self'; worker-src 'self';");
      expect(policy).toContain("connect-src 'self'");
      expect(policy).not.toMatch(/blob:|https?:|unsafe-eval|\*/);
      expect(html).not.toMatch(/<style|<script(?![^>]* src=)|https?:/);
      const file = await fetch(paths[0] as string);
      expect(file.headers.get('content-security-policy')).toContain("default-src 'none'");
    }));

  test('the files are compressed and cached for ever, at addresses that change with them', () =>
    withServer(async ({ url }) => {
      const { response, paths } = await pageOf(url);
      expect(response.headers.get('cache-control')).toBe('no-cache');
      const script = paths.find((path) => path.endsWith('/graphiql.js')) as string;
      const file = await fetch(script, { headers: { 'accept-encoding': 'gzip' } });
      expect(file.headers.get('content-encoding')).toBe('gzip');
      expect(file.headers.get('content-type')).toBe('text/javascript; charset=utf-8');
      expect(file.headers.get('cache-control')).toBe('public, max-age=31536000, immutable');
      expect(Number(file.headers.get('content-length'))).toBeLessThan(2_000_000);
      const etag = file.headers.get('etag') as string;
      expect((await fetch(script, { headers: { 'if-none-match': etag } })).status).toBe(304);
      for (const wrong of [script.replace('graphiql.js', 'other.js'), script.replace(/graphiql\/[^/]+/, 'graphiql/old')]) {
        expect((await fetch(wrong)).status).toBe(404);
      }
    }));

  test('a client that does not read gzip gets the same bytes', () =>
    withServer(async ({ url }) => {
      const path = (await pageOf(url)).paths.find((p) => p.endsWith('/boot.js')) as string;
      const zipped = await (await fetch(path, { headers: { 'accept-encoding': 'gzip' } })).text();
      expect(zipped).toContain('renderYogaGraphiQL');
      for (const encoding of ['identity', 'gzip;q=0', 'br, gzip; q=0.0']) {
        const plain = await fetch(path, { headers: { 'accept-encoding': encoding } });
        expect(plain.headers.get('content-encoding')).toBeNull();
        expect(plain.headers.get('vary')).toContain('Accept-Encoding');
        expect(await plain.text()).toBe(zipped);
      }
    }));
});

describe.skipIf(!executablePath)(`in Chromium, every other host blocked${whyNoBrowser}`, () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await launchBrowser();
  });
  afterAll(() => browser?.close());

  /** What the page asked of other hosts, and what the console complained of, policy violations included. */
  interface Seen {
    foreign: string[];
    complaints: string[];
  }

  /** Runs `use` with GraphiQL, opened by a browser that has never been here, once its schema is there. */
  async function withGraphiql(use: (page: Page, server: TestServer, seen: Seen) => Promise<void>, path = '/graphql'): Promise<void> {
    await withServer(async (server) => {
      await server.admin();
      const context = await browser.newContext({ viewport: { width: 1400, height: 850 } });
      try {
        const seen: Seen = { foreign: [], complaints: [] };
        await context.route('**/*', (route) => {
          const { origin, href } = new URL(route.request().url());
          if (origin === server.url) return route.continue();
          seen.foreign.push(href);
          return route.abort();
        });
        const page = await context.newPage();
        page.on('console', (message) => {
          if (['error', 'warning'].includes(message.type())) seen.complaints.push(message.text());
        });
        page.on('pageerror', (error) => seen.complaints.push(error.message));
        await page.addInitScript("addEventListener('securitypolicyviolation', (e) => console.error(e.violatedDirective, e.blockedURI))");
        await page.goto(server.url + path);
        await page.locator('.graphiql-execute-button').waitFor();
        await use(page, server, seen);
      } finally {
        await context.close();
      }
    });
  }

  const patient = { timeout: 30_000 };
  const logIn = async (page: Page, name = adminName, password = adminPassword) => {
    await page.getByLabel('Name').fill(name);
    await page.getByLabel('Password').fill(password);
    await page.getByRole('button', { name: 'Log in' }).click();
  };
  const loggedInAs = (page: Page, who: string) => page.locator('#who', { hasText: who }).waitFor();
  const loggedOut = (page: Page) => page.getByRole('button', { name: 'Log in' }).waitFor();
  const openTab = (page: Page, name: string) => page.locator('.graphiql-tab-button', { hasText: name }).click();
  const run = (page: Page) => page.locator('.graphiql-execute-button').click();
  const result = (page: Page, text: string) => page.locator('.result-window', { hasText: text }).waitFor();
  const nextRequest = (page: Page, operation: string) => page.waitForRequest((request) => request.postData()?.includes(operation) ?? false);

  test('one login counts for every tab, without a complaint of the browser', () =>
    withGraphiql(async (page, _server, { foreign, complaints }) => {
      await logIn(page);
      await loggedInAs(page, 'ada (admin)');
      await run(page);
      await result(page, '"name": "ada", "role": "ADMIN"');
      await openTab(page, 'AuditLog');
      await run(page);
      await result(page, '"action": "bootstrap"');
      expect(foreign).toEqual([]);
      expect(complaints).toEqual([]);
    }));

  test('the manual shows the descriptions to anybody', () =>
    withGraphiql(async (page, _server, { complaints }) => {
      await page.getByRole('button', { name: 'Show Documentation Explorer' }).click();
      await page.locator('.graphiql-doc-explorer-content a', { hasText: /^Query$/ }).click();
      await page.getByText('Everything that can be read.').waitFor();
      await page.getByText('The user of the access token or API key; null without one.').waitFor();
      expect(complaints).toEqual([]);
    }));

  test('a wrong password is said, and the field can be corrected', () =>
    withGraphiql(async (page) => {
      await logIn(page, adminName, 'not the password');
      await page.getByText('The name or the password is wrong.').waitFor();
      await logIn(page);
      await loggedInAs(page, 'ada (admin)');
      expect(await page.locator('#message').textContent()).toBe('');
    }));

  test('an access token can be given instead, with its own rights', () =>
    withGraphiql(async (page, server) => {
      await page.getByLabel('Access token').fill('not a token');
      await page.getByRole('button', { name: 'Use token' }).click();
      await page.getByText('The access token is invalid or expired.').waitFor();
      await page.getByLabel('Access token').fill(await server.as('VIEWER'));
      await page.getByRole('button', { name: 'Use token' }).click();
      await loggedInAs(page, 'viewer (viewer)');
      await openTab(page, 'Users');
      await run(page);
      await result(page, '"message": "The role VIEWER does not allow this: it needs MANAGE_USERS."');
    }));

  test('the login outlives a reload of the page, and no other page can copy it', () =>
    withGraphiql(async (page) => {
      await logIn(page);
      await loggedInAs(page, 'ada (admin)');
      await openTab(page, 'AuditLog');
      // What every access token begins with: the base64 of `{"`.
      const jwt = 'eyJ';
      const kept = () => page.evaluate<string>('JSON.stringify([sessionStorage, localStorage])');
      // GraphiQL writes down which tab is open after a while.
      const open = examples.findIndex(({ query }) => query.includes('query AuditLog'));
      await expect.poll(async () => /activeTabIndex\W+(\d+)/.exec(await kept())?.[1], patient).toBe(String(open));
      expect(await kept()).not.toContain(jwt);
      await page.reload();
      await loggedInAs(page, 'ada (admin)');
      await run(page);
      await result(page, '"action": "login"');
      expect(await kept()).not.toContain(jwt);
      expect(await page.locator('.graphiql-tab-button').count()).toBe(examples.length);
    }));

  test('the access token is refreshed before it expires', () =>
    withGraphiql(async (page) => {
      await page.clock.install();
      await page.reload();
      await logIn(page);
      await loggedInAs(page, 'ada (admin)');
      const tokenOf = async () => {
        const [request] = await Promise.all([nextRequest(page, 'query Viewer'), run(page)]);
        await result(page, '"name": "ada"');
        return request.headers().authorization as string;
      };
      const first = await tokenOf();
      const [refresh] = await Promise.all([nextRequest(page, 'mutation Refresh'), page.clock.fastForward('14:30')]);
      expect((await refresh.response())?.status()).toBe(200);
      const second = await tokenOf();
      expect(second).toMatch(/^Bearer ./);
      expect(second).not.toBe(first);
    }));

  test('a session that was ended elsewhere asks for a new login', () =>
    withGraphiql(async (page, server) => {
      await logIn(page);
      await loggedInAs(page, 'ada (admin)');
      const { data } = await server.graphql('{ viewer { sessions { id current } } }', {}, await server.admin());
      const { id } = data.viewer.sessions.find((session: { current: boolean }) => !session.current);
      const mutation = 'mutation ($i: RevokeSessionInput!) { revokeSession(input: $i) { userErrors { message } } }';
      await server.graphql(mutation, { i: { sessionId: id } }, await server.admin());
      await run(page);
      await loggedOut(page);
      await page.getByText('The session has ended. Log in again.').first().waitFor();
    }));

  test('logging out ends the session on the server', () =>
    withGraphiql(async (page, server) => {
      await logIn(page);
      await loggedInAs(page, 'ada (admin)');
      const [logout] = await Promise.all([nextRequest(page, 'mutation LogOut'), page.getByRole('button', { name: 'Log out' }).click()]);
      await logout.response();
      await loggedOut(page);
      const { data } = await server.graphql('{ viewer { sessions { id } } }', {}, await server.admin());
      expect(data.viewer.sessions).toHaveLength(1);
    }));

  test('a subscription runs over one WebSocket, which carries the login, until it is stopped', () =>
    withGraphiql(async (page, _server, { complaints }) => {
      await logIn(page);
      await loggedInAs(page, 'ada (admin)');
      await openTab(page, 'System');
      const sent: Message[] = [];
      const received: Message[] = [];
      page.on('websocket', (socket) => {
        socket.on('framesent', ({ payload }) => sent.push(JSON.parse(String(payload))));
        socket.on('framereceived', ({ payload }) => received.push(JSON.parse(String(payload))));
      });
      await run(page);
      await expect.poll(() => received.filter(({ type }) => type === 'next').length, patient).toBeGreaterThan(1);
      expect(sent.map(({ type }) => type)).toEqual(['connection_init', 'subscribe']);
      expect(sent[0]?.payload.authorization).toMatch(/^Bearer eyJ/);
      await result(page, '"slots": [ { "n": 0');
      await run(page);
      await expect.poll(() => sent.at(-1)?.type, patient).toBe('complete');
      expect(complaints).toEqual([]);
    }));

  test('a tab can be run as soon as it is opened', () =>
    withGraphiql(async (page) => {
      await logIn(page);
      await loggedInAs(page, 'ada (admin)');
      for (const [tab, answer] of [
        ['AuditLog', '"action": "login"'],
        ['System', '"slots": [ { "n": 0'],
      ] as const) {
        await page.evaluate((name) => {
          const tabs = [...document.querySelectorAll<HTMLElement>('.graphiql-tab-button')];
          tabs.find(({ textContent }) => textContent?.includes(name))?.click();
          document.querySelector<HTMLElement>('.graphiql-execute-button')?.click();
        }, tab);
        await result(page, answer);
      }
    }));

  test('a subscription goes on with the new token when the old one expires', () =>
    withGraphiql(async (page) => {
      await page.clock.install();
      await page.reload();
      await logIn(page);
      await loggedInAs(page, 'ada (admin)');
      await openTab(page, 'System');
      const [first] = await Promise.all([page.waitForEvent('websocket'), run(page)]);
      await first.waitForEvent('framereceived', ({ payload }) => String(payload).includes('"next"'));
      const [second] = await Promise.all([page.waitForEvent('websocket'), page.clock.fastForward('14:30')]);
      await second.waitForEvent('framereceived', ({ payload }) => String(payload).includes('"next"'));
      expect(first.isClosed()).toBe(true);
    }));

  test('the events of a running job arrive as they happen', () =>
    withGraphiql(async (page, server) => {
      await logIn(page);
      await loggedInAs(page, 'ada (admin)');
      const token = await server.admin();
      const upload = await post(server.url, token, 'digits.zip', await zipOf(await digitFolders([0, 1], 4)));
      const mutation =
        'mutation ($i: CreateDatasetInput!) { createDataset(input: $i) { userErrors { message } datasetVersion { job { id } } } }';
      const { uploadId, sha256 } = upload.json;
      const { data } = await server.graphql(mutation, { i: { name: 'digits', task: 'CLASSIFICATION', uploadId, sha256 } }, token);
      const { id } = data.createDataset.datasetVersion.job;

      // The import stands still until the page listens.
      const pid = await withRows(server.dataDir, (db) =>
        vi.waitUntil(() => db.select().from(attempt).get()?.pid, { ...patient, interval: 2 }),
      );
      process.kill(pid, 'SIGSTOP');
      const { query } = examples.find((example) => example.query.includes('subscription JobEvents')) as Example;
      await page.goto(`${server.url}/graphql?${new URLSearchParams({ query, variables: JSON.stringify({ id }) })}`);
      await loggedInAs(page, 'ada (admin)');
      const events: { seq: number; state?: string }[] = [];
      let completed = false;
      page.on('websocket', (socket) =>
        socket.on('framereceived', (frame) => {
          const { type, payload } = JSON.parse(String(frame.payload)) as Message;
          if (type === 'next') events.push(payload.data.jobEvents);
          completed ||= type === 'complete';
        }),
      );
      await run(page);
      await expect.poll(() => events.at(-1)?.state, patient).toBe('RUNNING');
      await result(page, '"state": "RUNNING"');
      process.kill(pid, 'SIGCONT');
      await result(page, '"state": "SUCCEEDED"');
      // What came before stays below it.
      await result(page, `"seq": ${(events.at(-1)?.seq ?? 0) - 1},`);
      await expect.poll(() => completed, patient).toBe(true);
      expect(events.map(({ seq }) => seq)).toEqual(events.map((_, i) => i + 1));
      expect(events.at(-1)?.state).toBe('SUCCEEDED');
    }));

  test('a link that brings a query opens it in a tab', () =>
    withGraphiql(
      async (page) => {
        await page.locator('.graphiql-tab-button', { hasText: 'Brought' }).waitFor();
        expect(new URL(page.url()).search).toBe('');
        await run(page);
        await result(page, '"__typename": "Query"');
      },
      `/graphql?query=${encodeURIComponent('query Brought { __typename }')}`,
    ));
});
