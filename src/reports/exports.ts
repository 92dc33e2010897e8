/** A report as a file: pure functions of its content. */
import { benchmarkColumns } from './benchmarkColumns.ts';
import { benchmarkDocument } from './benchmarkDocument.ts';
import { toCsv, type Value } from './forms/csv.ts';
import type { ReportDocument } from './forms/document.ts';
import { toHtml } from './forms/html.ts';
import { toMarkdown } from './forms/markdown.ts';
import { viewOf } from './view.ts';

/** What is exported: `content` is its canonical JSON, `sha256` its hash. */
export interface Exportable {
  /** What its file is called. */
  name: string;
  content: string;
  sha256: string;
  document(): ReportDocument;
  table(): { head: string[]; rows: Value[][] };
}

const formats = {
  JSON: { ending: 'json', mediaType: 'application/json', write: ({ content }) => content },
  CSV: {
    ending: 'csv',
    mediaType: 'text/csv',
    write(file) {
      const { head, rows } = file.table();
      return toCsv(head, rows);
    },
  },
  MARKDOWN: { ending: 'md', mediaType: 'text/markdown', write: (file) => toMarkdown(file.document()) },
  HTML: { ending: 'html', mediaType: 'text/html', write: (file) => toHtml(file.document()) },
} as const satisfies Record<string, { ending: string; mediaType: string; write(file: Exportable): string }>;

export type ReportFormat = keyof typeof formats;
export const reportFormats = Object.keys(formats) as ReportFormat[];

export interface ExportedReport {
  fileName: string;
  mediaType: string;
  content: string;
  /** Of the report as JSON, in each format. */
  sha256: string;
}

export function exportAs(file: Exportable, format: ReportFormat): ExportedReport {
  const { ending, mediaType, write } = formats[format];
  return { fileName: `${file.name}-${file.sha256.slice(0, 12)}.${ending}`, mediaType, content: write(file), sha256: file.sha256 };
}

/** The report of a benchmark. */
export function exportReport({ content, sha256 }: Pick<Exportable, 'content' | 'sha256'>, format: ReportFormat): ExportedReport {
  const view = () => viewOf(JSON.parse(content));
  return exportAs(
    {
      name: 'report',
      content,
      sha256,
      document: () => benchmarkDocument(view(), sha256),
      table() {
        const report = view();
        return {
          head: benchmarkColumns.map(([name]) => name),
          rows: report.rows.map((row) => benchmarkColumns.map(([, read]) => read(report, row))),
        };
      },
    },
    format,
  );
}
