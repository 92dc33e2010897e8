/** What a report shows before it is Markdown or HTML. Every string is plain text: each form escapes it. */

export interface Table {
  caption: string;
  head: string[];
  /** The first cell of a row names it. */
  rows: string[][];
  /** Index of the row that counts most. */
  marked?: number;
}

export interface Picture {
  /** A `data:` address of an image; null where it was deleted. */
  address: string | null;
  /** Of the image, in which the boxes are. */
  width: number;
  height: number;
  name: string;
  caption: string;
  boxes: readonly { kind: 'MISSED' | 'FALSE'; x: number; y: number; width: number; height: number }[];
}

export type DocumentBlock =
  | { text: string }
  | { list: string[] }
  | { steps: string[] }
  | { table: Table }
  | { pictures: Picture[] }
  /** SVG, which HTML shows. */
  | { plots: string[] };

export interface Section {
  heading: string;
  blocks: DocumentBlock[];
  /** Whether HTML shows it only when a reader opens it; it is not printed unless it is open. */
  folded?: boolean;
  /** Whether it is left out in print, as pictures are: they are for a closer look. */
  screenOnly?: boolean;
}

export interface ReportDocument {
  /** What is reported, such as `Benchmark`. */
  kind: string;
  title: string;
  lead: DocumentBlock[];
  sections: Section[];
  /** Where the numbers come from. */
  footer: string[];
}

/** Where a table has no value. */
export const none = '–';
