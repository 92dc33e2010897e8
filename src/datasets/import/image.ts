import sharp from 'sharp';
import type { LabelledBox } from '../../jobs/manifest.ts';
import { BadImage } from '../../vision/badImage.ts';
import { decodeImage, readImageHeader, sideMax } from '../../vision/decode.ts';
import { isPlain } from './plain.ts';

/** Longest side of a thumbnail in pixels. */
const thumbnailSide = 96;
const webp = { quality: 75, effort: 2 };

/** Red, green and blue of a class's boxes, which are drawn here rather than as SVG, so that no such decoder has to be reachable. */
const boxColors = [
  [255, 59, 48],
  [52, 199, 89],
  [10, 132, 255],
  [255, 204, 0],
  [191, 90, 242],
  [0, 199, 190],
  [255, 149, 0],
  [255, 55, 150],
] as const;

export interface OpenedImage {
  /** In pixels, upright by the EXIF orientation. */
  width: number;
  height: number;
  /** Decodes the image completely into a WebP that shows these boxes (in pixels of the image). Throws a BadImage when it is damaged. */
  thumbnail(boxes: readonly LabelledBox[]): Promise<Buffer>;
}

/** Reads the header of an image file. Throws a BadImage for anything else, and for an image of more than `pixelsMax` pixels. */
export async function openImage(file: Buffer, pixelsMax: number): Promise<OpenedImage> {
  const { width, height } = await readImageHeader(file);
  if (width * height > pixelsMax) {
    throw new BadImage(`has ${width} × ${height} pixels: more than ${(pixelsMax / 1e6).toLocaleString('en-US')} megapixels`);
  }
  // Serving would refuse it.
  if (Math.max(width, height) > sideMax) {
    throw new BadImage(`has ${width} × ${height} pixels: a side can have ${sideMax.toLocaleString('en-US')}`);
  }
  return {
    width,
    height,
    async thumbnail(boxes) {
      const image = sharp(file, { limitInputPixels: pixelsMax, failOn: 'error' });
      // Scaling down reads the whole image: what this accepts, Pillow decodes, and the other way round (truncations of every kind tried).
      const small = image.autoOrient().resize(thumbnailSide, thumbnailSide, { fit: 'inside', withoutEnlargement: true });
      if (boxes.length === 0) return small.webp(webp).toBuffer().catch(damaged);
      const { data, info } = await small.toColourspace('srgb').removeAlpha().raw().toBuffer({ resolveWithObject: true }).catch(damaged);
      for (const { label, x, y, width: w, height: h } of boxes) {
        const edge = (at: number, of: number, side: number) => Math.min(side - 1, Math.round((at / of) * side));
        const [left, right] = [edge(x, width, info.width), edge(x + w, width, info.width)];
        const [top, bottom] = [edge(y, height, info.height), edge(y + h, height, info.height)];
        const color = boxColors[label % boxColors.length] as readonly number[];
        const paint = (column: number, row: number) => data.set(color, (row * info.width + column) * 3);
        for (let column = left; column <= right; column += 1) for (const row of [top, bottom]) paint(column, row);
        for (let row = top; row <= bottom; row += 1) for (const column of [left, right]) paint(column, row);
      }
      return sharp(data, { raw: info }).webp(webp).toBuffer();
    },
  };
}

/**
 * The bytes that a dataset keeps of an image file: itself where every reader decodes it alike, otherwise a PNG of its pixels. Throws a
 * BadImage.
 */
export async function storedBytes(file: Buffer, pixelsMax: number): Promise<Buffer> {
  if (isPlain(file)) return file;
  await openImage(file, pixelsMax);
  const { data, width, height } = await decodeImage(file, pixelsMax);
  return sharp(data, { raw: { width, height, channels: 3 } })
    .png()
    .toBuffer();
}

/** Whether XMP data alone say that an image is turned: neither import nor trainer read them, while viewers do. */
export async function isTurnedByXmp(file: Buffer): Promise<boolean> {
  const at = file.indexOf('tiff:Orientation');
  if (at < 0 || !/^tiff:Orientation(="|>)[2-8]/.test(file.toString('latin1', at, at + 24))) return false;
  // Whether the file is whole is found out when it is decoded.
  const header = await sharp(file, { limitInputPixels: false })
    .metadata()
    .catch(() => null);
  return header !== null && header.orientation === undefined;
}

function damaged(error: Error): never {
  // Memory is not the image's fault.
  if (/out of memory|unable to allocate/i.test(error.message)) throw error;
  throw new BadImage('is truncated or damaged');
}
