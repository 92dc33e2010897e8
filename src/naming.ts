import { z } from 'zod';

/** Name of a model or a dataset. */
export const Name = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/,
    'A name has 1 to 100 letters, digits, dots, dashes or underscores, and starts with a letter or digit.',
  );

/** Control characters, line ends and direction marks: a terminal obeys them, and text around them reads as something else. */
export const unprintable = /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/u;

/** An id as the API gives it out: opaque, with its type in it. */
export const opaqueId = (type: string, id: string): string => Buffer.from(`${type}:${id}`).toString('base64url');

export const Notes = z.string().max(10_000, 'Notes have at most 10,000 characters.');
