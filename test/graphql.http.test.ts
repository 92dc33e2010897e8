import { once } from 'node:events';
import { request } from 'node:http';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import Sqlite from 'better-sqlite3';
import { serverAudits } from 'graphql-http';
import { describe, expect, test } from 'vitest';
import { adminName, adminPassword, type TestServer, withServer } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';

let server: TestServer;
withSharedServer(
  (running) => {
    server = running;
  },
  { WHETSTONE_ALLOWED_ORIGINS: 'https://lab.example, https://other.example:8443', WHETSTONE_PUBLIC_URL: 'https://whetstone.example/app' },
);

describe("graphql-http's audits", () => {
  test.each(serverAudits({ url: () => `${server.url}/graphql` }).map((audit) => [audit.name, audit] as const))(
    '%s',
    async (_name, audit) => {
      const result = await audit.fn();
      expect(result.status === 'ok' ? 'ok' : `${result.status}: ${result.reason}`).toBe('ok');
    },
  );
});

const json = { 'content-type': 'application/json' };
const post = (body: string, headers: Record<string, string> = json) => fetch(`${server.url}/graphql`, { method: 'POST', headers, body });
const codesOf = async (response: Response) =>
  ((await response.json()) as { errors?: { extensions: { code: string } }[] }).errors?.map((e) => e.extensions.code);
const typename = JSON.stringify({ query: '{ __typename }' });

describe('a body over the cap of 2 MiB', () => {
  const cap = 2 * 1024 * 1024;

  test('in chunks without a length is 413 at the cap', async () => {
    const { port } = new URL(server.url);
    const req = request({
      port,
      host: '127.0.0.1',
      method: 'POST',
      path: '/graphql',
      headers: { ...json, 'transfer-encoding': 'chunked' },
    });
    // The connection is cut when the answer was sent.
    req.on('error', () => {});
    const answered = once(req, 'response');
    let sentBytes = 0;
    let status: number | undefined;
    answered.then(([response]) => {
      status = response.statusCode;
    });
    const chunk = Buffer.alloc(64 * 1024, ' ');
    while (status === undefined) {
      sentBytes += chunk.length;
      if (sentBytes > 64 * cap) throw new Error('The server reads on far behind the cap.');
      await new Promise((resolve) => req.write(chunk, resolve));
    }
    const [response] = await answered;
    let text = '';
    for await (const part of response) text += part;
    req.destroy();
    expect([status, JSON.parse(text).errors[0].extensions.code]).toEqual([413, 'TOO_LARGE']);
    // What the buffers of the system hold comes on top.
    expect(sentBytes).toBeLessThan(cap + 16 * 1024 * 1024);
  });

  test('with its length is 413 before the body', async () => {
    const { port } = new URL(server.url);
    const req = request({ port, host: '127.0.0.1', method: 'POST', path: '/graphql', headers: { ...json, 'content-length': cap + 1 } });
    req.on('error', () => {});
    req.flushHeaders();
    const [response] = await once(req, 'response');
    req.destroy();
    expect(response.statusCode).toBe(413);
  });

  test('is the first that is refused: one at the cap is read', async () => {
    const padded = (bytes: number) => typename + ' '.repeat(bytes - typename.length);
    expect((await post(padded(cap))).status).toBe(200);
    const over = await post(padded(cap + 1));
    expect([over.status, await codesOf(over)]).toEqual([413, ['TOO_LARGE']]);
  });
});

describe('a web page of another origin', () => {
  const form = { 'content-type': 'application/x-www-form-urlencoded' };
  const login = `query=${encodeURIComponent('mutation { logout(input: { refreshToken: "x" }) { userErrors { code } } }')}`;

  test.each([
    'http://evil.example',
    'https://lab.example.evil.example',
    'http://lab.example',
    'https://other.example',
    'null',
    'http://127.0.0.1:1',
  ])('%s can post no form, no JSON and no preflight, and learns nothing', async (origin) => {
    const answers = [
      await post(login, { ...form, origin }),
      await post(typename, { ...json, origin }),
      await post(typename, { 'content-type': 'text/plain', origin }),
      await fetch(`${server.url}/graphql?query={__typename}`, { headers: { origin } }),
      await fetch(`${server.url}/graphql`, { method: 'OPTIONS', headers: { origin, 'access-control-request-method': 'POST' } }),
    ];
    for (const answer of answers) {
      expect([answer.status, await codesOf(answer)]).toEqual([403, ['FORBIDDEN']]);
      expect(answer.headers.get('access-control-allow-origin')).toBeNull();
    }
  });

  test.each(['https://lab.example', 'https://other.example:8443', 'https://whetstone.example', 'own'])('%s may call', async (name) => {
    const origin = name === 'own' ? server.url : name;
    const preflight = await fetch(`${server.url}/graphql`, {
      method: 'OPTIONS',
      headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization,content-type' },
    });
    expect(preflight.status).toBe(204);
    expect(preflight.headers.get('access-control-allow-headers')).toContain('authorization');
    const answer = await post(typename, { ...json, origin });
    expect([answer.status, answer.headers.get('access-control-allow-origin'), answer.headers.get('vary')]).toEqual([200, origin, 'Origin']);
    expect(answer.headers.get('access-control-allow-credentials'), 'there are no cookies').toBeNull();
  });
});

describe('the method and the form of a request', () => {
  test('a mutation by GET is 405 and not carried out', async () => {
    await server.admin();
    const { refreshToken, accessToken } = await server.login(adminName, adminPassword);
    const mutation = `mutation { logout(input: { refreshToken: "${refreshToken}" }) { userErrors { code } } }`;
    const answer = await fetch(`${server.url}/graphql?query=${encodeURIComponent(mutation)}`);
    expect([answer.status, answer.headers.get('allow'), await codesOf(answer)]).toEqual([405, 'POST', ['INVALID_DOCUMENT']]);
    expect((await server.graphql('{ viewer { id } }', {}, accessToken)).status).toBe(200);
  });

  test('a query by GET with variables works', async () => {
    const query = encodeURIComponent('query ($id: ID!) { node(id: $id) { id } }');
    const answer = await fetch(`${server.url}/graphql?query=${query}&variables=${encodeURIComponent('{"id":"x"}')}`);
    expect([answer.status, await codesOf(answer)]).toEqual([401, ['UNAUTHENTICATED']]);
  });

  test('a persisted query of Apollo or urql is answered so that they send the document', async () => {
    const extensions = { persistedQuery: { version: 1, sha256Hash: 'a'.repeat(64) } };
    const answers = await Promise.all([
      post(JSON.stringify({ operationName: 'Viewer', variables: {}, extensions }), json),
      fetch(`${server.url}/graphql?${new URLSearchParams({ extensions: JSON.stringify(extensions) })}`, {
        headers: { accept: 'application/graphql-response+json' },
      }),
    ]);
    for (const answer of answers) {
      expect(answer.status).toBe(200);
      expect(await answer.json()).toMatchObject({ errors: [{ message: 'PersistedQueryNotSupported' }] });
    }
    const whole = { query: '{ viewer { name } }', extensions };
    expect(await (await post(JSON.stringify(whole), json)).json()).toEqual({ data: { viewer: null } });
  });

  test.each<[what: string, status: number, code: string, request: [path: string, RequestInit]]>([
    [
      'a type that is not spoken',
      406,
      'NOT_ACCEPTABLE',
      ['/graphql', { method: 'POST', headers: { ...json, accept: 'image/png' }, body: typename }],
    ],
    ['a form of curl -d', 415, 'MEDIA_TYPE', ['/graphql', { method: 'POST', body: new URLSearchParams({ query: '{ viewer { name } }' }) }]],
    ['a form of curl -F', 415, 'MEDIA_TYPE', ['/graphql', { method: 'POST', body: new FormData() }]],
    ['plain text', 415, 'MEDIA_TYPE', ['/graphql', { method: 'POST', headers: { 'content-type': 'text/plain' }, body: typename }]],
    ['variables that are not JSON', 400, 'INVALID_DOCUMENT', ['/graphql?query={viewer{name}}&variables={', {}]],
    ['a method', 405, 'METHOD_NOT_ALLOWED', ['/graphql', { method: 'PUT', body: typename }]],
    ['a method of another route', 405, 'METHOD_NOT_ALLOWED', ['/health', { method: 'DELETE' }]],
  ])('%s is refused with %i and a body that says what to do', async (_what, status, code, [path, init]) => {
    const answer = await fetch(server.url + path, init);
    const { errors } = (await answer.json()) as { errors: { message: string; extensions: { code: string } }[] };
    expect([answer.status, answer.headers.get('content-type')]).toEqual([status, 'application/json; charset=utf-8']);
    expect(errors).toEqual([
      { message: expect.stringMatching(/.{20}/), extensions: { code, retryable: false, requestId: answer.headers.get('x-request-id') } },
    ]);
  });

  test.each<[what: string, status: number, request: string]>([
    ['a letter in the address that is not encoded', 400, 'GET /graphql?query={viewer{n\u00e4me}} HTTP/1.1\r\nHost: x\r\n\r\n'],
    ['what is not HTTP', 400, 'hello\r\n\r\n'],
    ['endless headers', 431, `GET /health HTTP/1.1\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`],
  ])('%s is %i with a body', async (_what, status, request) => {
    const socket = connect(Number(new URL(server.url).port), '127.0.0.1');
    socket.on('error', () => {});
    socket.write(request);
    const [head, body] = (await text(socket)).split('\r\n\r\n') as [string, string];
    expect(head).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect(JSON.parse(body).errors).toEqual([
      { message: expect.stringMatching(/.{20}/), extensions: expect.objectContaining({ retryable: false }) },
    ]);
  });

  test('events pass a proxy as they come: it is told not to keep them back', async () => {
    const headers = { ...json, accept: 'text/event-stream', authorization: `Bearer ${await server.admin()}` };
    const stop = new AbortController();
    const query = JSON.stringify({ query: 'subscription { system { queuedJobs } }' });
    const answer = await fetch(`${server.url}/graphql`, { method: 'POST', headers, body: query, signal: stop.signal });
    expect(answer.headers.get('x-accel-buffering')).toBe('no');
    expect(answer.headers.get('cache-control')).toBe('no-cache, no-transform');
    stop.abort();
  });

  test.each(['PUT', 'DELETE', 'PATCH'])('%s is 405', async (method) => {
    const answer = await fetch(`${server.url}/graphql`, { method, headers: json, body: typename });
    expect([answer.status, answer.headers.get('allow')]).toEqual([405, 'GET, POST']);
  });

  test.each(['text/plain', 'multipart/form-data; boundary=x', 'application/xml', ''])('a body of the type `%s` is 415', async (type) => {
    expect((await post(typename, type ? { 'content-type': type } : { 'content-type': 'x' })).status).toBe(415);
  });

  test('/ shows a browser where GraphiQL, the documents and health are; a program gets 404', async () => {
    const answer = await fetch(`${server.url}/`, { headers: { accept: 'text/html,application/xhtml+xml' } });
    const html = await answer.text();
    expect([answer.status, answer.headers.get('content-type')]).toEqual([200, 'text/html; charset=utf-8']);
    const links = [...html.matchAll(/href="([^"]+)"/g)].map(([, path]) => path as string);
    expect(links).toEqual(['graphql', 'openapi.json', 'health', 'ready', 'metrics']);
    expect(html).toContain('README.md');
    for (const path of links) expect((await fetch(new URL(path, `${server.url}/`), { headers: { accept: 'text/html' } })).status).toBe(200);
    expect((await fetch(`${server.url}/`, { method: 'POST' })).status).toBe(405);
  });

  test.each(['/', '/graphq', '/graphql/', '/graphql/../health/x', '/%2e%2e/etc/passwd', '/admin'])('%s is 404', async (path) => {
    const answer = await fetch(`${server.url}${path}`);
    expect([answer.status, await codesOf(answer)]).toEqual([404, ['NOT_FOUND']]);
  });
});

describe('the status of an answer', () => {
  test.each<[what: string, status: number, query: string]>([
    ['no data for lack of a login is 401', 401, '{ users { nodes { id } } }'],
    ['no data for lack of a login, in a field that may be null, is 401', 401, '{ node(id: "x") { id } }'],
    [
      'no data because the only field failed is the status of its code',
      404,
      '{ viewer { name } node(id: "x") { id } users(first: 0) { nodes { id } } }',
    ],
    ['data beside an error is 200', 200, '{ viewer { name } node(id: "x") { id } }'],
    ['a fault of the document is 400', 400, '{ viewer { nothing } }'],
  ])('%s', async (what, status, query) => {
    const token = what.includes('lack of') ? undefined : await server.admin();
    const response = await fetch(`${server.url}/graphql`, {
      method: 'POST',
      headers: { ...json, accept: 'application/graphql-response+json', ...(token ? { authorization: `Bearer ${token}` } : {}) },
      body: JSON.stringify({ query }),
    });
    expect(response.status).toBe(status);
    const body = (await response.json()) as { errors: { extensions: Record<string, unknown> }[] };
    for (const { extensions } of body.errors) {
      expect(Object.keys(extensions).sort()).toEqual(['code', 'requestId', 'retryable']);
    }
  });

  test('FORBIDDEN is 403', async () => {
    expect((await server.graphql('{ auditLog { nodes { seq } } }', {}, await server.as('VIEWER'))).status).toBe(403);
  });
});

describe('the request id', () => {
  const idOf = async (headers: Record<string, string>) => {
    const answer = await post('{"query": "{"}', { ...json, ...headers });
    const { errors } = (await answer.json()) as { errors: { extensions: { requestId: string } }[] };
    return [answer.headers.get('x-request-id'), errors[0]?.extensions.requestId];
  };

  test('is new for each request, in the header and in the errors', async () => {
    const [header, inError] = await idOf({});
    expect(header).toBe(inError);
    expect(header).toMatch(/^[\da-f-]{36}$/);
    expect(await idOf({})).not.toEqual([header, inError]);
  });

  test("is the client's own if that is harmless", async () => {
    expect(await idOf({ 'x-request-id': 'trace-1.a_B' })).toEqual(['trace-1.a_B', 'trace-1.a_B']);
    for (const bad of ['a b', '<script>', '"', 'x'.repeat(65), '{}'])
      expect((await idOf({ 'x-request-id': bad }))[0]).toMatch(/^[\da-f-]{36}$/);
  });
});

test('every answer tells the browser not to guess, frame, load or refer', async () => {
  for (const path of ['/health', '/graphql?query={__typename}', '/nothing']) {
    const { headers } = await fetch(server.url + path);
    expect(headers.get('x-content-type-options')).toBe('nosniff');
    expect(headers.get('referrer-policy')).toBe('no-referrer');
    expect(headers.get('content-security-policy')).toContain("default-src 'none'");
    expect(headers.get('x-powered-by')).toBeNull();
  }
});

test('health and readiness answer to anybody', async () => {
  for (const [path, body] of [
    ['/health', { status: 'ok' }],
    ['/ready', { status: 'ready', inference: 'IDLE' }],
  ] as const) {
    const answer = await fetch(server.url + path);
    expect([answer.status, await answer.json()]).toEqual([200, body]);
  }
});

test('metrics are in the text format of Prometheus, each sample under its family', async () => {
  const answer = await fetch(`${server.url}/metrics`);
  expect(answer.headers.get('content-type')).toContain('version=0.0.4');
  const lines = (await answer.text()).split('\n').filter((line) => line !== '');
  const families = lines.flatMap((line) => /^# TYPE (\S+) (?:counter|gauge|histogram)$/.exec(line)?.[1] ?? []);
  const samples = lines
    .filter((line) => !line.startsWith('#'))
    .map((line) => /^([a-z_]+?)(?:_bucket|_sum|_count)?(?:\{[^}]*\})? [0-9.e+-]+$/.exec(line)?.[1]);
  expect([...new Set(samples)]).toEqual(families);
  expect(lines).toEqual(expect.arrayContaining(['whetstone_jobs{state="RUNNING"} 0', 'whetstone_slots 2', 'whetstone_slots_used 0']));
});

test('a defect is 500 INTERNAL with nothing internal in it', () =>
  withServer(async (broken) => {
    const token = await broken.admin();
    const other = new Sqlite(`${broken.dataDir}/whetstone.db`);
    other.exec('ALTER TABLE audit RENAME TO elsewhere');
    other.close();
    for (const query of [
      '{ auditLog { nodes { seq } } }',
      'mutation { createUser(input: { name: "x", role: VIEWER, password: "a long password" }) { user { id } } }',
    ]) {
      const { status, data, errors } = await broken.graphql(query, {}, token);
      expect([status, data]).toEqual([500, null]);
      expect(errors).toEqual([
        {
          message: 'Something went wrong inside Whetstone. The log tells more under this request id.',
          path: expect.any(Array),
          locations: expect.any(Array),
          extensions: { code: 'INTERNAL', retryable: false, requestId: expect.any(String) },
        },
      ]);
    }
    expect((await fetch(`${broken.url}/health`)).status).toBe(200);
  }));

test('a client that hangs up in the middle of its body does no harm', async () => {
  const { port } = new URL(server.url);
  for (let i = 0; i < 20; i++) {
    const req = request({ port, host: '127.0.0.1', method: 'POST', path: '/graphql', headers: { ...json, 'content-length': 1000 } });
    req.on('error', () => {});
    req.write('{"query": "');
    await once(req, 'socket').then(([socket]) => socket.connecting && once(socket, 'connect'));
    req.destroy();
  }
  expect((await post(typename)).status).toBe(200);
});
