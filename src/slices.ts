/**
 * Lists of many rows with filters are read in slices, each in a turn of its own: a filter that few rows pass would hold the event loop for as
 * long as the table is, however good its index.
 */
import { inTurn } from './turns.ts';

/** Rows of the order that are looked at in a turn: about 4 ms where each is looked up by the order of a metric. */
export const sliceRows = 250;

/**
 * Goes along an order in slices. `endOf` gives the key that is `sliceRows` rows behind another; null near the end. `read` reads the rows behind a
 * key up to the end, that included, and says whether it has enough. `request` is that of `inTurn`.
 */
export async function inSlices<K>(
  request: object,
  start: K,
  endOf: (behind: K) => K | null,
  read: (behind: K, end: K | null) => boolean,
): Promise<void> {
  let behind = start;
  for (let isOver = false; !isOver; ) {
    isOver = await inTurn(request, () => {
      const end = endOf(behind);
      if (read(behind, end) || end === null) return true;
      behind = end;
      return false;
    });
  }
}
