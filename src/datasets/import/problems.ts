import { ChildError } from '../../jobs/childio.ts';
import { sidecar } from './names.ts';

/**
 * What cannot be accepted: all is counted, the first `max` are named. Problems of single images do not end the reading, so that one
 * import reports all of them.
 */
export interface Problems {
  readonly count: number;
  /** Those on which more than one image depends: reading on would report what follows from them. */
  readonly blocking: number;
  /**
   * `image` is the name in the zip of the only image that `reason` spoils. Where such images are left out it does not count, and the
   * image is in `leftOut`. A sidecar that is no image is always left out.
   */
  add(file: string, reason: string, image?: string): void;
  /** Ends a part of the reading: `summary` gets the number of problems since the part before. Throws if any problem is blocking. */
  check(summary: (count: number) => string): void;
  /** Adds the problems of `other` as a part of their own. */
  append(other: Problems, summary: (count: number) => string): void;
  /** Throws DATA_INVALID with the files if there are any problems. */
  end(): void;
  readonly details: readonly string[];
}

/** By name in the zip, with what is wrong. */
export type LeftOut = Map<string, string>;

/** `leftOut` takes the images that are left out; without `leaveOut` only sidecars. */
export function collectProblems(max: number, leftOut: LeftOut = new Map(), leaveOut = false): Problems {
  const details: string[] = [];
  const summaries: string[] = [];
  let [count, blocking, summarized] = [0, 0, 0];
  const problems: Problems = {
    get count() {
      return count;
    },
    get blocking() {
      return blocking;
    },
    details,
    add(file, reason, image) {
      if (image !== undefined && (leaveOut || sidecar.test(image))) {
        if (!leftOut.has(image)) leftOut.set(image, file === image ? reason : `${printable(file)}: ${reason}`);
        return;
      }
      count += 1;
      if (image === undefined) blocking += 1;
      if (details.length < max) details.push(`${printable(file)}: ${reason}`);
    },
    check(summary) {
      if (count > summarized) summaries.push(summary(count - summarized));
      summarized = count;
      if (blocking > 0) problems.end();
    },
    append(other, summary) {
      count += other.count;
      blocking += other.blocking;
      details.push(...other.details.slice(0, max - details.length));
      problems.check(summary);
    },
    end() {
      if (count === 0) return;
      const todo =
        blocking > 0
          ? []
          : [
              'Upload the zip again with these files corrected or removed, or with `onProblem: LEAVE_OUT`, which leaves out up to `leftOutShareMax` of the images.',
            ];
      const named = count > details.length ? [`The first ${details.length}:`] : [];
      throw new ChildError('DATA_INVALID', [...summaries, ...todo, ...named].join(' '), details);
    },
  };
  return problems;
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
