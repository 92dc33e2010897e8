/**
 * One POST to an address that users chose. The address is checked where the connection is made, so that a name which resolves to another
 * address a moment later does not help. Redirects are not followed, and no proxy or open connection is used.
 */
import { type LookupAddress, lookup } from 'node:dns';
import { type IncomingMessage, request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { isIP, type LookupFunction } from 'node:net';

/** Bytes of an answer that are read. */
const answerBytesMax = 4096;

export interface Posted {
  status: number;
  /** The beginning of the body. */
  text: string;
}

/** Throws an Error that says why there is no answer. `problemOf` says why an address is refused. */
export async function post(
  url: URL,
  headers: Record<string, string>,
  body: Buffer,
  problemOf: (address: string) => string | null,
  signal: AbortSignal,
): Promise<Posted> {
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
  // Node does not look up what is an address already.
  const problem = isIP(host) === 0 ? null : problemOf(host);
  if (problem !== null) throw new Error(problem);
  const checked: LookupFunction = (name, options, done) =>
    lookup(name, { ...options, all: true }, (error, addresses) => {
      if (error) return done(error, '');
      const refused = addresses.map(({ address }) => problemOf(address)).find((found) => found !== null);
      if (refused !== undefined) return done(new Error(`${name}: ${refused}`), '');
      const [first] = addresses as [LookupAddress];
      if (options.all) done(null, addresses);
      else done(null, first.address, first.family);
    });
  const request = url.protocol === 'https:' ? requestHttps : requestHttp;
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    request(url, { method: 'POST', headers, agent: false, lookup: checked, signal }).on('response', resolve).on('error', reject).end(body);
  });
  return { status: response.statusCode ?? 0, text: await beginningOf(response) };
}

async function beginningOf(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of response) {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes >= answerBytesMax) break;
    }
  } catch {
    // The status says whether it was taken.
  }
  return Buffer.concat(chunks).subarray(0, answerBytesMax).toString();
}
