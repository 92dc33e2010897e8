import { isIPv4 } from 'node:net';
import { inRanges } from '../addressRanges.ts';

/** What is not for everybody: RFC 6890 and its successors. Two lists, since an IPv4 address is also in an IPv6 range of its mapped form. */
const isSpecial4 = inRanges([
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24',
  '192.88.99.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
  '224.0.0.0/3',
]);
/** All outside 2000::/3, such as loopback, link-local, IPv4-mapped and NAT64; inside it tunnels, which lead to any IPv4 address, and examples. */
const isSpecial6 = inRanges(['::/3', '4000::/2', '8000::/1', '2001::/23', '2001:db8::/32', '2002::/16', '3fff::/20']);

/** A function that says why a webhook may not be sent to an address; null where it may. `allowed` are the ranges of the setting. */
export function addressProblem(allowed: readonly string[]): (address: string) => string | null {
  const isAllowed = inRanges(allowed);
  return (address) => {
    const [plain = ''] = address.split('%');
    if (isAllowed(plain) || !(isIPv4(plain) ? isSpecial4 : isSpecial6)(plain)) return null;
    return `${plain} is not a public address. An administrator can allow it with WHETSTONE_WEBHOOK_ADDRESSES, then restart the server.`;
  };
}
