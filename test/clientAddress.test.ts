import type { IncomingMessage } from 'node:http';
import { expect, test } from 'vitest';
import { clientAddressOf } from '../src/clientAddress.ts';

const addressOf = (remoteAddress: string, forwarded?: string, trusted: string[] = []): string =>
  clientAddressOf(trusted)({ socket: { remoteAddress }, headers: { 'x-forwarded-for': forwarded } } as unknown as IncomingMessage);

test('without a trusted proxy a client is who its socket says, whatever it writes into the header', () => {
  expect(addressOf('198.51.100.1')).toBe('198.51.100.1');
  expect(addressOf('198.51.100.1', '192.0.2.1')).toBe('198.51.100.1');
  expect(addressOf('198.51.100.1', '192.0.2.1', ['10.0.0.0/8'])).toBe('198.51.100.1');
});

test.each([
  ['192.0.2.1', '192.0.2.1'],
  ['203.0.113.9, 192.0.2.1', '192.0.2.1'],
  ['203.0.113.9, 192.0.2.1, 10.1.2.3', '192.0.2.1'],
  ['10.1.2.3', '10.1.2.3'],
  ['nonsense', '10.0.0.1'],
  ['192.0.2.1, nonsense', '10.0.0.1'],
  ['', '10.0.0.1'],
  [undefined, '10.0.0.1'],
])('behind a trusted proxy X-Forwarded-For %j is %s: the last one that is no trusted proxy', (forwarded, expected) => {
  expect(addressOf('10.0.0.1', forwarded, ['10.0.0.0/8', 'fd00::/8'])).toBe(expected);
  expect(addressOf('::ffff:10.0.0.1', forwarded, ['10.0.0.0/8'])).toBe(expected);
});

test('an IPv6 client is its /64, in one spelling', () => {
  for (const address of ['2001:db8:1:2:3:4:5:6', '2001:0DB8:0001:0002::1', '2001:db8:1:2::']) {
    expect(addressOf(address)).toBe('2001:db8:1:2::/64');
  }
  expect(addressOf('::1')).toBe('0:0:0:0::/64');
  expect(addressOf('fd00::1', '2001:db8::5', ['fd00::/8'])).toBe('2001:db8:0:0::/64');
});
