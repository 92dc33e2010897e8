/** The child of IMPORT_DATASET. With `--extract-only` it unpacks a zip that was imported before. */
import sharp from 'sharp';
import { runAsChild } from '../../jobs/childio.ts';
import { extract, importZip } from './run.ts';

const extractOnly = process.argv.includes('--extract-only');

await runAsChild('IMPORT_DATASET', { sharp: sharp.versions.sharp ?? '', libvips: sharp.versions.vips }, async (child) =>
  extractOnly ? { items: (await extract(child)).images.length } : importZip(child),
);
