/**
 * argon2id with 64 KiB in place of 19 MiB: the tests log in a thousand times, at 40 to 80 ms of CPU each. Tests of what hashing costs
 * say `vi.unmock('argon2')`; servers in processes of their own have the real thing.
 */
import { vi } from 'vitest';

vi.mock(import('argon2'), async (original) => {
  const { default: argon2 } = await original();
  const hash = (password: Buffer | string, options?: object) => argon2.hash(password, { ...options, memoryCost: 64 });
  return { default: { ...argon2, hash: hash as typeof argon2.hash } };
});
