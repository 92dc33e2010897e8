/** Inputs as a run takes them: each in one piece of memory, which begins at a multiple of 64 bytes. */
import { type Datatype, datatypes, elementsOf, tensorBytesOf } from '../engine/datatypes.ts';
import type { Tensor } from '../engine/engine.ts';
import type { Feed, OutputTensor } from './pool.ts';

export type StagedFeed = Omit<Feed, 'pieces'> & { bytes: Uint8Array };

export interface Staged {
  feeds: StagedFeed[];
  /** That was given, or larger memory in its place. */
  memory: ArrayBuffer;
  /** As `Run` has them. */
  copiedBytes: number;
}

const alignment = 64;
const aligned = (bytes: number): number => Math.ceil(bytes / alignment) * alignment;

/** Bytes to leave free before what is to have its byte `at` at a multiple of 64. */
export const gapBefore = (at: number): number => aligned(at) - at;

/** Between two runs; larger memory is freed. An input of 3 × 640 × 640 has 5 MB. */
const keptBytesMax = 8 * 2 ** 20;

/** What is kept of the memory when its run has ended. */
export const keptOf = (memory: ArrayBuffer): ArrayBuffer => (memory.byteLength > keptBytesMax ? memory.transfer(0) : memory);

/** The feeds where they lie; null where a run cannot read them there. */
export function stagedInPlace(feeds: readonly Feed[], memory: ArrayBuffer): Staged | null {
  const staged: StagedFeed[] = [];
  for (const { pieces, ...feed } of feeds) {
    const [bytes] = pieces as [Uint8Array];
    // A thread gets the memory of images.
    if (pieces.length > 1 || feed.images || bytes.byteOffset % alignment > 0) return null;
    staged.push({ ...feed, bytes });
  }
  return { feeds: staged, memory, copiedBytes: 0 };
}

/** Copies the feeds into the memory, or into new memory where they do not fit. */
export function stage(feeds: readonly Feed[], old: ArrayBuffer): Staged {
  const sizes = feeds.map(({ pieces }) => pieces.reduce((sum, piece) => sum + piece.length, 0));
  const size = sizes.reduce((sum, bytes) => sum + aligned(bytes), 0);
  const memory = old.byteLength < size ? new ArrayBuffer(size) : old;
  let from = 0;
  const staged = feeds.map(({ pieces, ...feed }, i) => {
    const bytes = new Uint8Array(memory, from, sizes[i]);
    let at = 0;
    for (const piece of pieces) {
      bytes.set(piece, at);
      at += piece.length;
    }
    from += aligned(bytes.length);
    return { ...feed, bytes };
  });
  return { memory, feeds: staged, copiedBytes: size };
}

export const tensorOf = ({ datatype, shape, bytes }: Pick<StagedFeed, 'datatype' | 'shape' | 'bytes'>): Tensor => ({
  datatype,
  shape,
  data: new datatypes[datatype].array(bytes.buffer as ArrayBuffer, bytes.byteOffset, elementsOf(shape)),
});

export const zerosOf = ({ datatype, shape }: { datatype: Datatype; shape: readonly number[] }): Tensor =>
  tensorOf({ datatype, shape, bytes: new Uint8Array(tensorBytesOf({ datatype, shape })) });

/** The output of a run as it is answered: its bytes. */
export const outputOf = ([name, { datatype, shape, data }]: [string, Tensor]): OutputTensor => ({
  name,
  datatype,
  shape,
  data: new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength),
});
