import type { IncomingMessage, ServerResponse } from 'node:http';
import { notFound } from '../errors.ts';
import type { StorageServices } from '../storage/blobs.ts';
import { attachment } from '../storage/files.ts';
import { checkLink, type LinkContext, signedUrl } from '../storage/links.ts';
import { type ExportedReport, type ReportFormat, reportFormats } from './exports.ts';
import { htmlPolicy } from './forms/html.ts';
import { exportInThread } from './inThread.ts';
import { exportJobs } from './jobs/exportJobs.ts';
import { findReport, readContent } from './reports.ts';

/** A report of a benchmark by its id, or what is reported of jobs by theirs. */
export type Reported = { reportId: string } | { jobIds: string[] };

export async function exportOf(services: StorageServices, request: object, of: Reported, format: ReportFormat): Promise<ExportedReport> {
  if ('jobIds' in of) return exportJobs(services, request, of.jobIds, format);
  const report = findReport(services.db, of.reportId) ?? notFound('report');
  return exportInThread({ does: 'EXPORT_REPORT', stored: { content: readContent(services.db, report), sha256: report.sha256 }, format });
}

/** A link to the file in this form: a browser shows HTML, and stores the others. */
export function reportUrl(context: LinkContext, of: Reported, format: ReportFormat): string {
  const path = 'jobIds' in of ? `jobs/${of.jobIds.join(',')}` : of.reportId;
  return signedUrl(context, `/files/reports/${path}/${format}`);
}

/**
 * `GET /files/reports/<report>/<format>` and `GET /files/reports/jobs/<jobs>/<format>` behind a link of `reportUrl`. A report has names that users
 * chose: should one ever get into its markup, the page still runs nothing, asks nobody for anything, and is of no origin.
 */
export async function serveReport(
  services: StorageServices & { linkKey: Buffer },
  req: IncomingMessage,
  res: ServerResponse,
): Promise<void> {
  const url = new URL(req.url ?? '', 'http://localhost');
  checkLink(services, url);
  const [, jobIds, reportId, name] = /^\/files\/reports\/(?:jobs\/([^/]+)|([^/]+))\/([^/]+)$/.exec(url.pathname) ?? [];
  const format = reportFormats.find((known) => known === name) ?? notFound('format');
  const of = jobIds === undefined ? { reportId: reportId ?? '' } : { jobIds: jobIds.split(',') };
  const { fileName, mediaType, content } = await exportOf(services, req, of, format);
  res.setHeader('Content-Security-Policy', `${htmlPolicy}; frame-ancestors 'none'; sandbox`);
  res.setHeader('Cache-Control', 'private, no-store');
  res.setHeader('Content-Type', `${mediaType}; charset=utf-8`);
  if (format !== 'HTML') res.setHeader('Content-Disposition', attachment(fileName));
  res.setHeader('Content-Length', Buffer.byteLength(content));
  res.end(req.method === 'HEAD' ? undefined : content);
}
