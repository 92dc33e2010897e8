/** The child of IMPORT_DATASET. With `--extract-only <manifest>` it unpacks a zip that was imported before. */
import sharp from 'sharp';
import { runAsChild } from '../../jobs/childio.ts';
import type { ImportChild } from './layout.ts';
import { extractAgain, importZip } from './run.ts';

const [option, manifest = ''] = process.argv.slice(2);
const work = option === '--extract-only' ? (child: ImportChild) => extractAgain(child, manifest) : importZip;

await runAsChild('IMPORT_DATASET', { sharp: sharp.versions.sharp ?? '', libvips: sharp.versions.vips }, work);
