/** From the bytes of an image to pixels. The library is loaded with the first image: a start without one does not wait for it. */
import type { Pixels } from './picture.ts';

export interface Decoded {
  pixels: Pixels;
  /** Size of the image itself, upright. */
  width: number;
  height: number;
}

/** The image, upright, as large as fits into these pixels. */
export async function decode(bytes: Uint8Array, width: number, height: number): Promise<Decoded> {
  const { default: sharp } = await import('sharp');
  sharp.cache(false);
  sharp.concurrency(1);
  const image = sharp(bytes).autoOrient();
  const { autoOrient } = await image.metadata();
  const { data, info } = await image
    .resize({ width, height, fit: 'inside' })
    .flatten({ background: '#808080' })
    .toColourspace('srgb')
    .raw()
    .toBuffer({ resolveWithObject: true });
  return { pixels: { width: info.width, height: info.height, data: rgb(data, info.channels) }, ...autoOrient };
}

/** A grey image has one channel. */
function rgb(data: Uint8Array, channels: number): Uint8Array {
  if (channels === 3) return data;
  const count = data.length / channels;
  const result = new Uint8Array(3 * count);
  for (let i = 0; i < count; i += 1) result.fill(data[i * channels] as number, 3 * i, 3 * i + 3);
  return result;
}
