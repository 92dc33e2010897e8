/** Sends requests to an inference host, at their time or as fast as they are answered, and measures what becomes of them. */
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { nowMs } from '../inference/clock.ts';
import { KeptConnection, noAnswer, type Reply } from './connection.ts';
import type { TickerData } from './ticker.thread.ts';

/** Instead of an HTTP status: too many requests had no answer yet. */
export const notSent = -1;

/** Requests without an answer, beyond which no more are sent: half of the connections that a host takes. */
const inFlightMax = 2000;
/** Open before the first request, so that opening them takes no time from it. */
const openAtStart = 32;
const lookMs = 100;

export interface Target {
  url: string;
  /** Taken in turn. */
  requests: readonly Uint8Array[];
  /** Whether the work is to end now. */
  stopping(): boolean;
}

/** What became of each request, in the order of their due times. */
export interface Driven {
  /** Of the window, of `nowMs()`. */
  startMs: number;
  /** Milliseconds from the start of the window. */
  dueMs: Float64Array;
  sentMs: Float64Array;
  /** From the due time to the last byte of the answer; NaN without one. */
  latencyMs: Float64Array;
  /** Of HTTP, `noAnswer` or `notSent`. */
  status: Int16Array;
}

/** Statuses of a host that has too much to do, or is going. Every other one but 200 says that the request is wrong. */
const busyStatuses = [429, 503, 504];

/** The host answers that these requests are wrong: to send more of them measures nothing. */
export class RequestRefused extends Error {
  constructor({ status, text }: Reply) {
    super(`The inference host answered ${status}: ${text.slice(0, 500)}`);
  }
}

const isWrong = ({ status }: Reply): boolean => status >= 400 && status < 500 && !busyStatuses.includes(status);

/** Connections that are kept: the last that was used is used next. */
function openConnections(url: string, count: number) {
  const all = new Set<KeptConnection>();
  const idle: KeptConnection[] = [];
  const add = (): KeptConnection => {
    const added = new KeptConnection(url);
    all.add(added);
    return added;
  };
  for (let n = 0; n < count; n += 1) idle.push(add());
  return {
    async send(request: Uint8Array, sinceMs?: number): Promise<Reply> {
      let connection = idle.pop();
      while (connection?.closed) connection = idle.pop();
      connection ??= add();
      const reply = await connection.send(request, sinceMs);
      if (connection.closed) all.delete(connection);
      else idle.push(connection);
      return reply;
    },
    closeAll() {
      for (const connection of all) connection.close();
    },
  };
}

/**
 * Sends a request at each of the due times, whatever has become of those before. Resolves when all have their answers, at the latest
 * `answerMsMax` after the last due time; what has none by then has `noAnswer`. `told` gets the number of answers so far.
 */
export async function openLoop(
  { url, requests, stopping }: Target,
  dueMs: Float64Array<ArrayBuffer>,
  answerMsMax: number,
  told: (answered: number) => void = () => {},
): Promise<Driven> {
  const count = dueMs.length;
  const connections = openConnections(url, openAtStart);
  const ticker = new Worker(new URL('./ticker.thread.ts', import.meta.url), { workerData: dueMs satisfies TickerData });
  await once(ticker, 'message');
  // So that the ticker has the message before the first request is due.
  const startMs = nowMs() + 10;
  const driven: Driven = {
    startMs,
    dueMs,
    sentMs: new Float64Array(count).fill(Number.NaN),
    latencyMs: new Float64Array(count).fill(Number.NaN),
    status: new Int16Array(count).fill(notSent),
  };
  let next = 0;
  let inFlight = 0;
  let answered = 0;
  let wrong: RequestRefused | null = null;

  const send = async (n: number): Promise<void> => {
    inFlight += 1;
    const reply = connections.send(requests[n % requests.length] as Uint8Array, startMs + (dueMs[n] as number));
    driven.sentMs[n] = nowMs() - startMs;
    driven.status[n] = noAnswer;
    const answer = await reply;
    inFlight -= 1;
    driven.status[n] = answer.status;
    if (answer.status === noAnswer) return;
    answered += 1;
    driven.latencyMs[n] = answer.ms;
    if (isWrong(answer)) wrong ??= new RequestRefused(answer);
  };
  ticker.on('message', () => {
    for (; next < count && startMs + (dueMs[next] as number) <= nowMs(); next += 1) if (inFlight < inFlightMax) void send(next);
  });
  ticker.postMessage(startMs);

  const endMs = startMs + (dueMs.at(-1) ?? 0) + answerMsMax;
  while ((next < count || inFlight > 0) && !stopping() && wrong === null && nowMs() < endMs) {
    await delay(lookMs);
    told(answered);
  }
  await ticker.terminate();
  connections.closeAll();
  // Their connections report that they have no answer.
  while (inFlight > 0) await delay(1);
  if (wrong !== null) throw wrong;
  return driven;
}

/** Answered requests a second while each of `count` connections sends the next one when it has its answer, after a time to warm up. */
export async function closedLoop(
  { url, requests, stopping }: Target,
  { count, warmupMs, ms }: Record<'count' | 'warmupMs' | 'ms', number>,
): Promise<number> {
  const connections = openConnections(url, count);
  const beginMs = nowMs() + warmupMs;
  const endMs = beginMs + ms;
  let sent = 0;
  let answered = 0;
  const client = async (): Promise<void> => {
    while (!stopping() && nowMs() < endMs) {
      sent += 1;
      const reply = await connections.send(requests[sent % requests.length] as Uint8Array);
      if (isWrong(reply)) throw new RequestRefused(reply);
      const now = nowMs();
      if (reply.status === 200 && now >= beginMs && now < endMs) answered += 1;
      // A host that is busy, or has gone, is not asked again at once.
      if (reply.status !== 200) await delay(20);
    }
  };
  await Promise.all(Array.from({ length: count }, client)).finally(() => connections.closeAll());
  return (1000 * answered) / ms;
}
