import type { IncomingMessage, ServerResponse } from 'node:http';
import { ApiError, notFound } from '../../errors.ts';
import { AttemptCrash, JobFailure, type JobServices } from '../../jobs/kinds.ts';
import { checkLink, type LinkContext, signedUrl } from '../../storage/links.ts';
import { sendZip } from '../../storage/zip.ts';
import { findDataset, findDatasetVersion } from '../datasets.ts';
import { imageFiles } from '../imageFiles.ts';
import type { DatasetVersion } from '../tables.ts';
import { type ExportForm, exportFiles, exportForms } from './forms.ts';

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
  await sendZip(req, res, `${dataset.name}-${version.number}-${form.toLowerCase()}.zip`, async () => {
    const images = await imageFiles(services, version).catch((error: unknown) => {
      throw error instanceof JobFailure || error instanceof AttemptCrash ? new ApiError('UNAVAILABLE', error.message) : error;
    });
    return exportFiles(form, { db: services.db, version, images });
  });
}
