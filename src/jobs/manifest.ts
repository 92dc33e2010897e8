/** The lines of a dataset's manifest, which imports write and the trainer reads. Part of the protocol (`protocol.ts`). */
import { z } from 'zod';

const sha256 = z.string().regex(/^[0-9a-f]{64}$/);

/** Boxes of an image: more are refused by the import. */
export const boxesPerImageMax = 1000;

/** An object in an image: multiples of 1/1024 pixel, so that every reader's sums are exact, and inside the image. */
export const LabelledBox = z
  .object({
    label: z.int().min(0).describe('Index into classes.'),
    x: z.number().min(0).describe('Left edge, in pixels of the upright image.'),
    y: z.number().min(0).describe('Upper edge, in pixels of the upright image.'),
    width: z.number().gt(0).describe('In pixels.'),
    height: z.number().gt(0).describe('In pixels.'),
    crowd: z
      .literal(true)
      .optional()
      .describe('Many objects that nobody has marked one by one: training and evaluation ignore this class inside the box.'),
  })
  .meta({ id: 'LabelledBox' });
export type LabelledBox = z.infer<typeof LabelledBox>;

/** Of the lines that imports write. The trainer reads older ones too: another version needs a reader in `data.py`. */
export const manifestVersion = 2;

/** One line of a dataset's manifest, a JSON-lines file sorted by n. Either `label` or `boxes` is null. */
export const DatasetItem = z
  .object({
    v: z.literal(manifestVersion).describe('Version of this form; lines of version 1 have none.'),
    n: z.int().min(0).describe('Position in the dataset version, from 0, without gaps.'),
    split: z.enum(['train', 'val', 'test']),
    path: z.string().min(1).max(1000).describe('In the dataset, with "/".'),
    sha256: sha256.describe('Of the file in the zip; what is read may be a PNG of its pixels.'),
    width: z.int().min(1).describe('In pixels, upright by the EXIF orientation.'),
    height: z.int().min(1).describe('In pixels, upright by the EXIF orientation.'),
    label: z.int().min(0).nullable().describe('CLASSIFICATION: index into classes.'),
    boxes: z.array(LabelledBox).max(boxesPerImageMax).nullable().describe('DETECTION: empty where nothing is to be seen.'),
  })
  .meta({ id: 'DatasetItem' });
export type DatasetItem = z.infer<typeof DatasetItem>;
