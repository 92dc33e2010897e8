import { z } from 'zod';

/** What is wrong with a name, with its beginning as it was written. */
export const nameMessage =
  (allowed: string) =>
  ({ input }: { input?: unknown }): string =>
    `${JSON.stringify(String(input).slice(0, 100))} is not possible: a name has ${allowed}, no spaces, and starts with a letter or digit.`;

/** Name of a model or a dataset: letters of every script, composed, so that what looks the same is the same name. */
export const Name = z
  .string()
  .normalize('NFC')
  .regex(/^[\p{L}\p{N}][\p{L}\p{M}\p{N}._-]{0,99}$/u, {
    error: nameMessage('1 to 100 letters, digits, dots, dashes or underscores'),
  });

/** Name of a deployment: it is part of addresses. */
export const AddressName = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/, {
  error: nameMessage('1 to 100 letters from A to Z, digits, dots, dashes or underscores'),
});

/** Control characters, line ends and direction marks: a terminal obeys them, and text around them reads as something else. */
export const unprintable = /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/u;

/** An id as the API gives it out: opaque, with its type in it. */
export const opaqueId = (type: string, id: string): string => Buffer.from(`${type}:${id}`).toString('base64url');

export const Notes = z.string().max(10_000, 'Notes have at most 10,000 characters.');
