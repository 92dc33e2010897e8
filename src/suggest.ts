/** For who has misspelt a name: which one was meant, and which there are. */
import { z } from 'zod';

/** Insertions, deletions and replacements from one text to the other. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (const [i, letter] of [...a].entries()) {
    const next = [i + 1];
    for (let j = 1; j <= b.length; j += 1) {
      const replaced = (row[j - 1] as number) + (letter === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}

/** ` Did you mean …?` where one of the names is close to this one, else nothing. */
export function suggestion(wrong: string, names: readonly string[]): string {
  const text = wrong.slice(0, 100);
  const [nearest] = names.map((name) => ({ name, far: distance(text, name) })).sort((a, b) => a.far - b.far);
  return nearest && nearest.far <= Math.max(2, nearest.name.length / 4) ? ` Did you mean ${nearest.name}?` : '';
}

/** An object that takes these keys only. Another one is refused with the nearest and all that there are. */
export function strict<T extends z.ZodRawShape>(shape: T) {
  const names = Object.keys(shape);
  return z.strictObject(shape, {
    error: (issue) => {
      if (issue.code !== 'unrecognized_keys') return undefined;
      const [key = ''] = issue.keys;
      return `There is no ${key.slice(0, 100)} here.${suggestion(key, names)} There are: ${names.join(', ')}.`;
    },
  });
}
