import { readFileSync } from 'node:fs';
import sharp from 'sharp';
import type { LabelledBox } from '../../jobs/specs.ts';
import { otherThanImage } from './fileKinds.ts';

// One thread for each image, several images at a time; nothing is decoded twice.
sharp.concurrency(1);
sharp.cache(false);
// A format is told by its content, and only these three decoders of libvips can be reached at all.
sharp.block({ operation: ['VipsForeignLoad'] });
sharp.unblock({ operation: ['VipsForeignLoadJpegFile', 'VipsForeignLoadPngFile', 'VipsForeignLoadWebpFile'] });

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

/** A file that is not an image that can be used; the message is a reason. */
export class BadImage extends Error {}

/**
 * Reads the header of a JPEG, PNG or WebP file. Throws a BadImage for anything else, for an image of more than `pixelsMax` pixels and
 * for an animation.
 */
export async function openImage(file: string, pixelsMax: number): Promise<OpenedImage> {
  const header = await sharp(file, { limitInputPixels: false })
    .metadata()
    .catch((error: Error) => notAnImage(error, file));
  if (header.width * header.height > pixelsMax) {
    throw new BadImage(`has ${header.width} × ${header.height} pixels: more than ${(pixelsMax / 1e6).toLocaleString('en-US')} megapixels`);
  }
  if ((header.pages ?? 1) > 1) throw new BadImage(`is an animation of ${header.pages} frames: still images are needed`);
  const { width, height } = header.autoOrient;
  return {
    width,
    height,
    async thumbnail(boxes) {
      // Scaling down reads the whole image: what this accepts, Pillow decodes, and the other way round (truncations of every kind tried).
      const small = sharp(file, { limitInputPixels: pixelsMax, failOn: 'error' })
        .autoOrient()
        .resize(thumbnailSide, thumbnailSide, { fit: 'inside', withoutEnlargement: true });
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

function notAnImage(error: Error, file: string): never {
  if (isFromSystem(error)) throw error;
  if (error.message.includes('unsupported image format')) {
    const other = otherThanImage(readFileSync(file));
    throw new BadImage(other ? `is ${other}` : 'is not a JPEG, PNG or WebP image');
  }
  return damaged(error);
}

function damaged(error: Error): never {
  if (isFromSystem(error)) throw error;
  throw new BadImage('is truncated or damaged');
}

/** Memory and missing files are not the image's fault. */
const isFromSystem = (error: Error): boolean => /out of memory|unable to allocate|Input file is missing/i.test(error.message);
