/** A host by itself gets the accounts of a server: it polls them, and goes by the last that it got where the server cannot be reached. */
import { setTimeout as delay } from 'node:timers/promises';
import { keysUsedHeader } from '../accessTokens.ts';
import type { Log } from '../log.ts';
import { nowMs } from './clock.ts';
import type { RunningHost } from './host.ts';

const pollMs = 1000;
const answerMsMax = 5000;
/** 100,000 API keys. */
const answerBytesMax = 16 * 2 ** 20;

interface Source {
  /** Of the server. */
  url: string;
  token: string;
}
type Told = Pick<RunningHost, 'replaceAuth' | 'confirmAuth' | 'keysUsed'>;

/** API keys that one request reports as used: their hashes stand in a header. */
const keysUsedMax = 50;

/** What a status says about the two settings. */
const reasons: Record<number, string> = {
  401: 'The server has another WHETSTONE_REPLICA_TOKEN.',
  404: 'The server was started without WHETSTONE_REPLICA_TOKEN, or it is none.',
};

/** Resolves when the host has the accounts; from then on it has them as they are, for as long as the process lives. */
export async function followAccounts(source: Source, host: Told, log: Log): Promise<void> {
  const poll = poller(source, host, log);
  while (!(await poll())) await delay(pollMs);
  void (async () => {
    for (;;) {
      await delay(pollMs);
      await poll();
    }
  })();
}

/** A function that asks once and says whether that went well; it never throws. Why it does not is logged when the reason changes. */
function poller({ url, token }: Source, host: Told, log: Log): () => Promise<boolean> {
  const address = `${url.replace(/\/+$/, '')}/inference/accounts`;
  let etag: string | null = null;
  let problem: string | null = null;

  async function fetchAccounts(): Promise<void> {
    const askedMs = nowMs();
    const used = host.keysUsed(keysUsedMax);
    const { status, headers, text } = await answerOf(address, {
      authorization: `Bearer ${token}`,
      ...(used.length === 0 ? {} : { [keysUsedHeader]: used.join(',') }),
      ...(etag === null ? {} : { 'if-none-match': etag }),
    });
    if (status === 200) {
      replace(host, text);
      etag = headers.get('etag');
    } else if (status !== 304 || etag === null) {
      throw new Error(reasons[status] ?? `The server answers with status ${status}.`);
    }
    host.confirmAuth(askedMs);
  }

  return async () => {
    try {
      await fetchAccounts();
      if (problem !== null) log.info({ url: address }, 'the accounts are fetched again');
      problem = null;
      return true;
    } catch (error) {
      const { message, cause } = error as Error;
      if (message !== problem) log.warn({ url: address, reason: message, cause }, 'the accounts cannot be fetched');
      problem = message;
      return false;
    }
  };
}

/** The answer, whole. Throws an Error when there is none in time, or when it is too long. The token goes to no other address. */
async function answerOf(address: string, headers: Record<string, string>): Promise<{ status: number; headers: Headers; text: string }> {
  const pieces: Uint8Array[] = [];
  let length = 0;
  try {
    const response = await fetch(address, { headers, redirect: 'manual', signal: AbortSignal.timeout(answerMsMax) });
    for await (const piece of response.body ?? []) {
      length += piece.length;
      if (length > answerBytesMax) break;
      pieces.push(piece);
    }
    if (length <= answerBytesMax) return { status: response.status, headers: response.headers, text: Buffer.concat(pieces).toString() };
  } catch (error) {
    const { cause, message } = error as Error;
    throw new Error('The server cannot be reached.', { cause: (cause as Error | undefined)?.message ?? message });
  }
  throw new Error(`The server answers with more than ${answerBytesMax} bytes.`);
}

function replace(host: Told, text: string): void {
  try {
    host.replaceAuth(JSON.parse(text));
  } catch {
    // What is wrong with it may show what is in it.
    throw new Error('The server answers with something else than accounts. Are both of the same version?');
  }
}
