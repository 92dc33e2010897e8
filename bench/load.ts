/** What benchmarks share: load, and what is made of its measurements. */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { nowMs } from '../src/inference/clock.ts';
import { KeptConnection, type Reply } from '../src/loadTest/connection.ts';

/** Each connection sends the next request when it has its answer. Answers that come after `ms` do not count. */
export async function closedLoop(url: string, request: Buffer, count: number, ms: number): Promise<Reply[]> {
  const clients = Array.from({ length: count }, () => new KeptConnection(url));
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
  const clients: KeptConnection[] = [];
  const replies: Promise<Reply & { inWindow: boolean }>[] = [];
  const startedAt = nowMs();
  for (let elapsed = 0; elapsed < ms; elapsed = nowMs() - startedAt) {
    while (replies.length < (elapsed * perSecond) / 1000) {
      let client = clients.find(({ busy }) => !busy);
      if (!client) {
        client = new KeptConnection(url);
        clients.push(client);
      }
      const dueAt = startedAt + (replies.length * 1000) / perSecond;
      replies.push(client.send(request, dueAt).then((reply) => ({ ...reply, inWindow: nowMs() <= startedAt + ms })));
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

/** The processor time that a process has used, in milliseconds: in /proc it is in hundredths of a second. */
export function cpuMs(pid: number): number {
  const [user = 0, system = 0] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ').slice(11, 13).map(Number) ?? [];
  return 10 * (user + system);
}

export const percentile = (sorted: number[], p: number): number => sorted[Math.max(0, Math.ceil(p * sorted.length) - 1)] ?? Number.NaN;
export const median = (all: number[]): number =>
  percentile(
    all.toSorted((a, b) => a - b),
    0.5,
  );
export const sortedMs = (replies: Reply[]): number[] => replies.map(({ ms }) => ms).sort((a, b) => a - b);
