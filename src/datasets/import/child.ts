/** The child of IMPORT_DATASET. With `--extract-only` it unpacks a zip that was imported before. */
import sharp from 'sharp';
import { runAsChild } from '../../jobs/childio.ts';
import { extractAgain, importZip } from './run.ts';

const work = process.argv.includes('--extract-only') ? extractAgain : importZip;

await runAsChild('IMPORT_DATASET', { sharp: sharp.versions.sharp ?? '', libvips: sharp.versions.vips }, work);
