/**
 * From the bytes of an image file to its pixels, as docs/preprocessing.md defines it (steps 1 to 3). Import and serving both decode here, and
 * the import converts a file that the trainer's decoder could read otherwise (`datasets/import/plain.ts`): so all three see the same.
 */
import sharp from 'sharp';
import { BadImage } from './badImage.ts';
import { decodeBmp, isBmp, readBmpHeader } from './bmp.ts';
import { otherThanImage } from './fileKinds.ts';
import { hasKnownColors } from './tiff.ts';

// One thread for each image, several images at a time; nothing is decoded twice.
sharp.concurrency(1);
sharp.cache(false);
// A format is recognized by its content, and only these decoders of libvips can be reached at all.
sharp.block({ operation: ['VipsForeignLoad'] });
sharp.unblock({
  operation: ['VipsForeignLoadJpegBuffer', 'VipsForeignLoadPngBuffer', 'VipsForeignLoadWebpBuffer', 'VipsForeignLoadTiffBuffer'],
});

/** Longest side in pixels: half-way, a resize holds height × width of the input × 12 bytes, 230 MB for an input of 640. */
export const sideMax = 30_000;

export interface ImageHeader {
  /** In pixels, upright by the EXIF orientation. */
  width: number;
  height: number;
  /** Bytes of the pixels, height × width × RGB. */
  pixelBytes: number;
  /** Bytes that there are at most while it is decoded, the pixels among them. */
  decodingBytes: number;
}

/** Without decoding the image. Throws a BadImage for what is no still image of these formats. */
export async function readImageHeader(file: Buffer): Promise<ImageHeader> {
  if (file.length === 0) throw notAnImage(file);
  if (isBmp(file)) {
    const { width, height } = readBmpHeader(file);
    const pixelBytes = 3 * width * height;
    return { width, height, pixelBytes, decodingBytes: pixelBytes };
  }
  const { autoOrient, space, pages, format, isProgressive, orientation, depth } = await sharp(file, { limitInputPixels: false })
    .metadata()
    .catch((error: Error) => refuse(error, file));
  if ((pages ?? 1) > 1) {
    throw new BadImage(
      format === 'tiff' ? `has ${pages} pages: one is needed` : `is an animation of ${pages} frames: a still image is needed`,
    );
  }
  if (depth !== 'uchar' && depth !== 'ushort') throw new BadImage(`has samples of the type ${depth}: 8 or 16 bits are needed`);
  if (format === 'tiff' && !hasKnownColors(file)) throw new BadImage('has colours that are not read (YCbCr or Lab): convert it to PNG');
  const { width, height } = autoOrient;
  // Measured with 25 megapixels: libwebp takes 3.4 times the pixels, what comes in passes or is turned is held a second time, with all
  // that it has beside red, green and blue. A TIFF may be a single strip of 4 channels of 16 bits.
  const held = space === 'cmyk' || depth === 'ushort' ? 3 : 1;
  const copies =
    1 + (format === 'webp' ? 3 : 0) + (format === 'tiff' ? 3 : 0) + (isProgressive ? held : 0) + ((orientation ?? 1) > 1 ? held : 0);
  const pixelBytes = 3 * width * height;
  return { width, height, pixelBytes, decodingBytes: copies * pixelBytes };
}

export interface Pixels {
  /** Height × width × RGB, upright. */
  data: Buffer;
  width: number;
  height: number;
}

/** Throws a BadImage for what is damaged. The header was read before, and `pixelsMax` with it. */
export async function decodeImage(file: Buffer, pixelsMax: number): Promise<Pixels> {
  if (isBmp(file)) return decodeBmp(file);
  const { data, info } = await sharp(file, { limitInputPixels: pixelsMax, failOn: 'error', ignoreIcc: true })
    .autoOrient()
    .removeAlpha()
    .toColourspace('srgb')
    .raw()
    .toBuffer({ resolveWithObject: true })
    .catch((error: Error) => refuse(error, file));
  if (info.channels !== 3) throw new BadImage(`has ${info.channels} channels that are no colours: convert it to PNG`);
  return { data, width: info.width, height: info.height };
}

function refuse(error: Error, file: Buffer): never {
  // Memory is not the image's fault.
  if (/out of memory|unable to allocate/i.test(error.message)) throw error;
  throw error.message.includes('unsupported image format') ? notAnImage(file) : new BadImage('is truncated or damaged');
}

const notAnImage = (file: Buffer) => new BadImage(`is ${otherThanImage(file) ?? 'not a JPEG, PNG, WebP, TIFF or BMP image'}`);
