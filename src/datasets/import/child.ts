/** The child of IMPORT_DATASET. With `--index-only <manifest>` it finds the images of a zip that was imported before. */
import sharp from 'sharp';
import { runAsChild } from '../../jobs/childio.ts';
import type { ImportChild } from './layout.ts';
import { importZip, indexAgain } from './run.ts';

const [option, manifest = ''] = process.argv.slice(2);
const work = option === '--index-only' ? (child: ImportChild) => indexAgain(child, manifest) : importZip;

await runAsChild('IMPORT_DATASET', { sharp: sharp.versions.sharp ?? '', libvips: sharp.versions.vips }, work);
