import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { ApiError, notFound } from '../../errors.ts';
import { AttemptCrash, JobFailure, type JobServices } from '../../jobs/kinds.ts';
import { attachment } from '../../storage/files.ts';
import { checkLink, type LinkContext, signedUrl } from '../../storage/links.ts';
import { extractedFolder } from '../cache.ts';
import { findDataset, findDatasetVersion } from '../datasets.ts';
import type { DatasetVersion } from '../tables.ts';
import { type ExportForm, exportFiles, exportForms } from './forms.ts';
import { writeZip } from './zip.ts';

/** Downloads at a time: each reads the disk as fast as its client takes it. */
const exportsMax = 4;
let exporting = 0;

/** A link that downloads a READY version of task DETECTION in this form. */
export function exportUrl(context: LinkContext, { id }: Pick<DatasetVersion, 'id'>, form: ExportForm): string {
  return signedUrl(context, `/files/datasets/${id}/${form}`);
}

/** `GET /files/datasets/<version>/<form>` behind a link of `exportUrl`: a zip that is made while it is read, always of the same bytes. */
export async function serveExport(services: JobServices & { linkKey: Buffer }, req: IncomingMessage, res: ServerResponse): Promise<void> {
  const url = new URL(req.url ?? '', 'http://localhost');
  checkLink(services, url);
  const [, , , id = '', name] = url.pathname.split('/');
  const form = exportForms.find((known) => known === name) ?? notFound('form');
  const version = findDatasetVersion(services.db, id);
  const dataset = version && findDataset(services.db, version.datasetId);
  if (!version || !dataset || version.state !== 'READY' || dataset.task !== 'DETECTION') notFound('dataset version');
  if (exporting >= exportsMax)
    throw new ApiError('UNAVAILABLE', `${exportsMax} datasets are being downloaded already. Try again in a moment.`, 5000);
  exporting += 1;
  try {
    const folder = await extractedFolder(services, version).catch((error: unknown) => {
      throw error instanceof JobFailure || error instanceof AttemptCrash ? new ApiError('UNAVAILABLE', error.message) : error;
    });
    res.setHeader('Content-Type', 'application/zip');
    res.setHeader('Content-Disposition', attachment(`${dataset.name}-${version.number}-${form.toLowerCase()}.zip`));
    res.setHeader('Cache-Control', 'private, no-store');
    if (req.method === 'HEAD') {
      res.end();
      return;
    }
    await pipeline(Readable.from(writeZip(exportFiles(form, { db: services.db, version, folder })), { objectMode: false }), res).catch(
      (error: NodeJS.ErrnoException) => {
        if (error.code !== 'ERR_STREAM_PREMATURE_CLOSE') throw error;
      },
    );
  } finally {
    exporting -= 1;
  }
}
