/** What libvips does not say of a TIFF: how its samples are meant. */

const tags = { compression: 259, photometric: 262 };
/** Photometric interpretations: white is 0, black is 0, RGB, palette, CMYK. */
const asColors = [0, 1, 2, 3, 5];
const yCbCr = 6;
const jpeg = 7;

/**
 * Whether libvips makes right colours of the first page: it would take the samples of YCbCr that is not JPEG for red, green and blue.
 * TIFF 6.0 and BigTIFF; throws a RangeError for a directory that leads out of the file.
 */
export function hasKnownColors(file: Buffer): boolean {
  const little = file.toString('latin1', 0, 2) === 'II';
  const u16 = (at: number) => (little ? file.readUInt16LE(at) : file.readUInt16BE(at));
  const u32 = (at: number) => (little ? file.readUInt32LE(at) : file.readUInt32BE(at));
  const u64 = (at: number) => Number(little ? file.readBigUInt64LE(at) : file.readBigUInt64BE(at));
  const big = u16(2) === 43;
  const directory = big ? u64(8) : u32(4);
  const count = big ? u64(directory) : u16(directory);
  const found: Record<number, number> = {};
  for (let i = 0; i < count; i += 1) {
    const at = directory + (big ? 8 + 20 * i : 2 + 12 * i);
    found[u16(at)] = u16(at + (big ? 12 : 8));
  }
  const photometric = found[tags.photometric] ?? -1;
  return asColors.includes(photometric) || (photometric === yCbCr && found[tags.compression] === jpeg);
}
