/** The memory of a dispatched request: its inputs one after the other, each at a multiple of 64 bytes. */
import { type Datatype, datatypes, elementsOf } from '../engine/datatypes.ts';
import type { Tensor } from '../engine/engine.ts';
import type { Image } from '../vision/reading.ts';
import type { Feed, OutputTensor } from './pool.ts';

export interface StagedFeed {
  name: string;
  datatype: Datatype;
  shape: readonly number[];
  /** Bytes from the start of the memory; a multiple of 64. */
  offset: number;
  image?: Image;
}

const alignment = 64;
const aligned = (bytes: number): number => Math.ceil(bytes / alignment) * alignment;

/** Between two runs; larger memory is freed. An input of 3 × 640 × 640 has 5 MB. */
const keptBytesMax = 8 * 2 ** 20;

/** What is kept of the memory when its run has ended. */
export const keptOf = (memory: ArrayBuffer): ArrayBuffer => (memory.byteLength > keptBytesMax ? memory.transfer(0) : memory);

/** Copies the feeds into the memory, or into new memory where they do not fit. */
export function stage(feeds: readonly Feed[], old: ArrayBuffer): { memory: ArrayBuffer; feeds: StagedFeed[] } {
  const sizes = feeds.map(({ pieces }) => pieces.reduce((sum, piece) => sum + piece.length, 0));
  const size = sizes.reduce((sum, bytes) => sum + aligned(bytes), 0);
  const memory = old.byteLength < size ? new ArrayBuffer(size) : old;
  const target = new Uint8Array(memory);
  let from = 0;
  const staged = feeds.map(({ pieces, ...feed }, i) => {
    const offset = from;
    let at = offset;
    for (const piece of pieces) {
      target.set(piece, at);
      at += piece.length;
    }
    from += aligned(sizes[i] as number);
    return { ...feed, offset };
  });
  return { memory, feeds: staged };
}

export const tensorIn = (memory: ArrayBuffer, { datatype, shape, offset }: Pick<StagedFeed, 'datatype' | 'shape' | 'offset'>): Tensor => ({
  datatype,
  shape,
  data: new datatypes[datatype].array(memory, offset, elementsOf(shape)),
});

export const zerosOf = ({ datatype, shape }: Pick<Feed, 'datatype' | 'shape'>): Tensor =>
  tensorIn(new ArrayBuffer(elementsOf(shape) * datatypes[datatype].bytes), { datatype, shape, offset: 0 });

/** The output of a run as it is answered: its bytes. */
export const outputOf = ([name, { datatype, shape, data }]: [string, Tensor]): OutputTensor => ({
  name,
  datatype,
  shape,
  data: new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength),
});
