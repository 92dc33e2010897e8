import { expect, test, vi } from 'vitest';
import { hashPassword, verifyPassword } from '../src/accounts/passwords.ts';

vi.unmock('argon2');

test('a password is hashed with the parameters that OWASP asks for, under a salt of its own', async () => {
  const [one, other] = [await hashPassword('correct horse'), await hashPassword('correct horse')];
  expect(one).toMatch(/^\$argon2id\$v=19\$m=19456,p=1,t=2\$/);
  expect(other).not.toBe(one);
  expect(await verifyPassword(one, 'correct horse')).toBe(true);
  expect(await verifyPassword(one, 'correct mule')).toBe(false);
  expect(await verifyPassword(undefined, 'correct horse')).toBe(false);
});
