import { ChildError } from '../../jobs/childio.ts';

/** What cannot be accepted: all is counted, the first `max` are named. */
export interface Problems {
  readonly count: number;
  /**
   * `image` is the name in the zip of the only image that `reason` spoils. Where such images are left out it does not count, and the
   * image is in `leftOut`.
   */
  add(file: string, reason: string, image?: string): void;
  /** Throws DATA_INVALID with the files when there are any; `summary` gets their number. */
  check(summary: (count: number) => string): void;
}

/** By name in the zip, with what is wrong. */
export type LeftOut = Map<string, string>;

/** `leftOut` takes the images that are left out; null: each is a problem. */
export function collectProblems(max: number, leftOut: LeftOut | null = null): Problems {
  const details: string[] = [];
  let count = 0;
  return {
    get count() {
      return count;
    },
    add(file, reason, image) {
      if (leftOut && image !== undefined) {
        if (!leftOut.has(image)) leftOut.set(image, file === image ? reason : `${printable(file)}: ${reason}`);
        return;
      }
      count += 1;
      if (details.length < max) details.push(`${printable(file)}: ${reason}`);
    },
    check(summary) {
      if (count === 0) return;
      throw new ChildError('DATA_INVALID', `${summary(count)}${count > details.length ? ` The first ${details.length}:` : ''}`, details);
    },
  };
}

/** A file's name as it can be shown: without control characters, cut in the middle when it is long. */
export function printable(name: string): string {
  const clean = name.replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Cf}]/gu, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
  return clean.length > 200 ? `${clean.slice(0, 120)}…${clean.slice(-70)}` : clean;
}

const namedMax = 10;

/** The first names of a list, as a warning shows them. */
export const someOf = (names: readonly string[]): string =>
  `${names.slice(0, namedMax).map(printable).join(', ')}${names.length > namedMax ? ', …' : ''}`;

/** "1 file", "2 files". */
export const plural = (count: number, one: string, many = `${one}s`): string =>
  `${count.toLocaleString('en-US')} ${count === 1 ? one : many}`;
