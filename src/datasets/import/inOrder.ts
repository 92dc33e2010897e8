import { BadImage } from '../../vision/badImage.ts';
import { DamagedEntry } from './zip.ts';

/** Of one image: the others are read on. */
export type Bad = BadImage | DamagedEntry;

/**
 * What `work` makes of each item, in the order of the items, with at most `ahead` of them running. A BadImage or a DamagedEntry is a result.
 * Nothing runs any more when it ends, however it ends.
 */
export async function* inOrder<T, R>(items: Iterable<T>, ahead: number, work: (item: T) => Promise<R>): AsyncGenerator<[T, R | Bad]> {
  const queue: { item: T; outcome: Promise<{ value: R | Bad } | { error: unknown }> }[] = [];
  const take = async (): Promise<[T, R | Bad]> => {
    const { item, outcome } = queue.shift() as (typeof queue)[number];
    const settled = await outcome;
    if ('error' in settled) throw settled.error;
    return [item, settled.value];
  };
  try {
    for (const item of items) {
      const outcome = work(item).then(
        (value) => ({ value }),
        (error: unknown) => (error instanceof BadImage || error instanceof DamagedEntry ? { value: error } : { error }),
      );
      queue.push({ item, outcome });
      if (queue.length >= ahead) yield await take();
    }
    while (queue.length > 0) yield await take();
  } finally {
    await Promise.all(queue.map(({ outcome }) => outcome));
  }
}
