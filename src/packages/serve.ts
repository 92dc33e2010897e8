import type { IncomingMessage, ServerResponse } from 'node:http';
import { notFound } from '../errors.ts';
import type { StorageServices } from '../storage/blobs.ts';
import { checkLink, type LinkContext, signedUrl } from '../storage/links.ts';
import { sendZip } from '../storage/zip.ts';
import { filesOf, type Package, preparePackage } from './contents.ts';
import { packageForms } from './source.ts';

export const packageUrl = (context: LinkContext, { source, form }: Package): string =>
  signedUrl(context, `/files/packages/${source.version.id}/${form}`);

/** `GET /files/packages/<model version>/<form>` behind a link of `packageUrl`. */
export async function servePackage(
  services: StorageServices & { linkKey: Buffer },
  req: IncomingMessage,
  res: ServerResponse,
): Promise<void> {
  const url = new URL(req.url ?? '', 'http://localhost');
  checkLink(services, url);
  const [, , , id = '', name] = url.pathname.split('/');
  const form = packageForms.find((known) => known === name) ?? notFound('form');
  const prepared = preparePackage(services, id, form);
  await sendZip(req, res, prepared.fileName, () => filesOf(services, prepared));
}
