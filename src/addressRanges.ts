import { BlockList, isIP, isIPv4 } from 'node:net';
import { z } from 'zod';

/** Addresses and CIDR ranges of a setting. */
export const AddressRanges = z.array(
  z.union([z.ipv4(), z.ipv6(), z.cidrv4(), z.cidrv6()], { error: 'each is an address or a range such as 10.0.0.0/8 or fd00::/8' }),
);

/** A function that tells whether an address is in one of the ranges. An IPv4 address is also in the IPv6 ranges of its mapped form. */
export function inRanges(ranges: readonly string[]): (address: string) => boolean {
  const list = new BlockList();
  for (const range of ranges) {
    const [address = '', bits] = range.split('/');
    const family = isIPv4(address) ? 'ipv4' : 'ipv6';
    if (bits === undefined) list.addAddress(address, family);
    else list.addSubnet(address, Number(bits), family);
  }
  return (address) => isIP(address) !== 0 && list.check(address, isIPv4(address) ? 'ipv4' : 'ipv6');
}
