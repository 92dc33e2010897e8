/** What the engine found, or why it refused the file. */
export type LoadResult =
  | {
      engine: string;
      inputs: string[];
      outputs: string[];
      /** From each of the probe's outputs, null where it is not a number; empty without a probe. */
      largestDifferences: (number | null)[];
    }
  | { refused: string };
