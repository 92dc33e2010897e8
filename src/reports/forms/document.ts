/** What a report shows before it is Markdown or HTML. Every string is plain text: each form escapes it. */

export interface Table {
  caption: string;
  head: string[];
  /** The first cell of a row names it. */
  rows: string[][];
  /** Index of the row that counts most. */
  marked?: number;
}

export type DocumentBlock =
  | { text: string }
  | { list: string[] }
  | { steps: string[] }
  | { table: Table }
  /** SVG, which HTML shows. */
  | { plots: string[] };

export interface Section {
  heading: string;
  blocks: DocumentBlock[];
  /** Whether HTML shows it only when a reader opens it; it is not printed unless it is open. */
  folded?: boolean;
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
