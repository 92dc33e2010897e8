/** The load of the benchmarks of serving: raw HTTP/1.1, so that the clients cost the machine as little as can be. */
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

export interface Reply {
  status: number;
  ms: number;
}

/** A connection that costs the machine as little as can be: bytes out, the status line and the length of the body in. */
export class Client {
  readonly #socket: Socket;
  #received: Buffer = Buffer.alloc(0);
  #tell: (reply: Reply) => void = () => {};
  #sinceMs = 0;
  busy = false;

  constructor(url: string) {
    const { hostname, port } = new URL(url);
    this.#socket = connect({ host: hostname, port: Number(port), noDelay: true });
    this.#socket.on('data', (bytes) => this.#read(bytes));
    this.#socket.on('error', () => {});
  }

  /** The latency counts from `sinceMs` (of `performance.now()`): when the request was due, if it could not be sent then. */
  send(request: Buffer, sinceMs = performance.now()): Promise<Reply> {
    this.busy = true;
    this.#sinceMs = sinceMs;
    this.#socket.write(request);
    return new Promise((resolve) => {
      this.#tell = resolve;
    });
  }

  #read(bytes: Buffer): void {
    this.#received = this.#received.length === 0 ? bytes : Buffer.concat([this.#received, bytes]);
    const end = this.#received.indexOf('\r\n\r\n');
    if (end < 0) return;
    const head = this.#received.subarray(0, end).toString('latin1');
    const length = Number(/content-length: (\d+)/i.exec(head)?.[1]);
    if (this.#received.length < end + 4 + length) return;
    this.#received = Buffer.alloc(0);
    this.busy = false;
    this.#tell({ status: Number(head.slice(9, 12)), ms: performance.now() - this.#sinceMs });
  }

  close(): void {
    this.#socket.destroy();
  }
}

export function requestOf(path: string, headers: Record<string, string | number>, body: Uint8Array): Buffer {
  const lines = Object.entries({ host: 'localhost', 'content-length': body.length, ...headers }).map(
    ([name, value]) => `${name}: ${value}`,
  );
  return Buffer.concat([Buffer.from(`POST ${path} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`), body]);
}

/** Each connection sends the next request when it has its answer. Answers that come after `ms` do not count. */
export async function closedLoop(url: string, request: Buffer, count: number, ms: number): Promise<Reply[]> {
  const clients = Array.from({ length: count }, () => new Client(url));
  const replies: Reply[] = [];
  const endAt = performance.now() + ms;
  await Promise.all(
    clients.map(async (client) => {
      for (;;) {
        const reply = await client.send(request);
        if (performance.now() > endAt) return;
        replies.push(reply);
      }
    }),
  );
  for (const client of clients) client.close();
  return replies;
}

/**
 * Requests are due at this rate, whatever becomes of those before. Latencies count from when a request was due, so that a client that is
 * behind does not hide what its users wait. `inWindow`: the answer came within `ms`.
 */
export async function openLoop(url: string, request: Buffer, perSecond: number, ms: number): Promise<(Reply & { inWindow: boolean })[]> {
  const clients: Client[] = [];
  const replies: Promise<Reply & { inWindow: boolean }>[] = [];
  const startedAt = performance.now();
  for (let elapsed = 0; elapsed < ms; elapsed = performance.now() - startedAt) {
    while (replies.length < (elapsed * perSecond) / 1000) {
      let client = clients.find(({ busy }) => !busy);
      if (!client) {
        client = new Client(url);
        clients.push(client);
      }
      const dueAt = startedAt + (replies.length * 1000) / perSecond;
      replies.push(client.send(request, dueAt).then((reply) => ({ ...reply, inWindow: performance.now() <= startedAt + ms })));
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  const all = await Promise.all(replies);
  for (const client of clients) client.close();
  return all;
}

/** Each of `count` users thinks for `thinkMs` after an answer; the first requests are spread over that time. */
export async function users(count: number, thinkMs: number, ms: number, send: (user: number) => Promise<Reply>): Promise<Reply[]> {
  const replies: Reply[] = [];
  const endAt = performance.now() + ms;
  await Promise.all(
    Array.from({ length: count }, async (_, user) => {
      await delay((user / count) * thinkMs);
      while (performance.now() < endAt) {
        replies.push(await send(user));
        await delay(thinkMs);
      }
    }),
  );
  return replies;
}

export const percentile = (sorted: number[], p: number): number => sorted[Math.max(0, Math.ceil(p * sorted.length) - 1)] ?? Number.NaN;
export const median = (all: number[]): number =>
  percentile(
    all.toSorted((a, b) => a - b),
    0.5,
  );
export const sortedMs = (replies: Reply[]): number[] => replies.map(({ ms }) => ms).sort((a, b) => a - b);
