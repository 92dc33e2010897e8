/** What is wrong with a value that is out of its range: zod's own texts leave the value out, and speak of expected numbers. */
import type { z } from 'zod';

const units: Record<string, string> = { string: 'character', array: 'element' };

/** For `safeParse`; undefined where zod's text will do. */
export function rangeProblem(issue: z.core.$ZodRawIssue): string | undefined {
  if (issue.code === 'not_multiple_of') return `${shown(issue.input)} is not a multiple of ${issue.divisor}.`;
  if (issue.code !== 'too_small' && issue.code !== 'too_big') return undefined;
  const [limit, words] =
    issue.code === 'too_small'
      ? [issue.minimum, issue.inclusive ? 'at least' : 'more than']
      : [issue.maximum, issue.inclusive ? 'at most' : 'less than'];
  const unit = units[issue.origin];
  if (unit) return `Must have ${words} ${limit} ${unit}${limit === 1 ? '' : 's'}, and has ${(issue.input as string | unknown[]).length}.`;
  return `${shown(issue.input)} is too ${issue.code === 'too_small' ? 'small' : 'large'}: must be ${words} ${limit}.`;
}

const shown = (input: unknown): string => String(input).slice(0, 100);
