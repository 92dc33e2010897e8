import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import { inRanges } from './addressRanges.ts';

/**
 * A function that tells from which network a request comes: an IPv4 address, or the /64 of an IPv6 address, which one machine can have
 * all of. `X-Forwarded-For` counts only as far as it was written by proxies of `trusted` (addresses and CIDR ranges): anybody else could
 * write what they like into it.
 */
export function clientAddressOf(trusted: readonly string[]): (req: IncomingMessage) => string {
  const isTrusted = inRanges(trusted);
  return (req) => {
    const named = String(req.headers['x-forwarded-for'] ?? '').split(',');
    let client = unmapped(req.socket.remoteAddress ?? '');
    // Each proxy appends who it was called by: from the right, the first address that is no trusted proxy is the client.
    while (isTrusted(client) && named.length > 0) {
      const before = unmapped((named.pop() as string).trim());
      if (isIP(before) === 0) break;
      client = before;
    }
    return networkOf(client);
  };
}

/** An IPv4 address that a socket for both families shows as `::ffff:192.0.2.1`. */
const unmapped = (address: string): string => /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1] ?? address;

function networkOf(address: string): string {
  if (isIP(address) !== 6) return address;
  const [left = [], right] = address.split('::').map((half) => half.split(':').filter(Boolean));
  const groups = right ? [...left, ...Array<string>(Math.max(0, 8 - left.length - right.length)).fill('0'), ...right] : left;
  return `${groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':')}::/64`;
}
