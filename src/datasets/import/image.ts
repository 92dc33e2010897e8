import sharp from 'sharp';

// One thread for each image, several images at a time; nothing is decoded twice.
sharp.concurrency(1);
sharp.cache(false);
// A format is told by its content, and only these three decoders of libvips can be reached at all.
sharp.block({ operation: ['VipsForeignLoad'] });
sharp.unblock({ operation: ['VipsForeignLoadJpegFile', 'VipsForeignLoadPngFile', 'VipsForeignLoadWebpFile'] });

/** Longest side of a thumbnail in pixels. */
const thumbnailSide = 96;

export interface DecodedImage {
  /** In pixels, upright by the EXIF orientation. */
  width: number;
  height: number;
  /** WebP. */
  thumbnail: Buffer;
}

/** A file that is not an image that can be used; the message is a reason. */
export class BadImage extends Error {}

/**
 * Decodes a JPEG, PNG or WebP file completely. Throws a BadImage for anything else, for a damaged or truncated image, for one
 * of more than `pixelsMax` pixels (told from its header) and for an animation.
 */
export async function decodeImage(file: string, pixelsMax: number): Promise<DecodedImage> {
  const header = await sharp(file, { limitInputPixels: false }).metadata().catch(notAnImage);
  if (header.width * header.height > pixelsMax) {
    throw new BadImage(`has ${header.width} × ${header.height} pixels: more than ${(pixelsMax / 1e6).toLocaleString('en-US')} megapixels`);
  }
  if ((header.pages ?? 1) > 1) throw new BadImage(`is an animation of ${header.pages} frames: still images are needed`);
  const { width, height } = header.autoOrient;
  // Scaling down reads the whole image: what this accepts, Pillow decodes, and the other way round (truncations of every kind tried).
  const thumbnail = await sharp(file, { limitInputPixels: pixelsMax, failOn: 'error' })
    .autoOrient()
    .resize(thumbnailSide, thumbnailSide, { fit: 'inside', withoutEnlargement: true })
    .webp({ quality: 75, effort: 2 })
    .toBuffer()
    .catch(damaged);
  return { width, height, thumbnail };
}

function notAnImage(error: Error): never {
  if (isFromSystem(error)) throw error;
  if (error.message.includes('unsupported image format')) throw new BadImage('is not a JPEG, PNG or WebP image');
  return damaged(error);
}

function damaged(error: Error): never {
  if (isFromSystem(error)) throw error;
  throw new BadImage('is truncated or damaged');
}

/** Memory and missing files are not the image's fault. */
const isFromSystem = (error: Error): boolean => /out of memory|unable to allocate|Input file is missing/i.test(error.message);
