/** Windows bitmaps without run-length coding, which libvips does not read. */
import { BadImage } from './badImage.ts';

interface Bmp {
  width: number;
  height: number;
  topDown: boolean;
  bits: number;
  dataOffset: number;
  /** Bytes of a row, a multiple of 4. */
  stride: number;
  /** Of up to 8 bits a pixel: blue, green, red and, after the oldest header, one byte more. */
  palette: { offset: number; entryBytes: number; entries: number };
  /** Of 16 and 32 bits a pixel: the bits of red, green and blue. */
  masks: readonly number[];
}

const oldestHeader = 12;
const headerSizes = [oldestHeader, 40, 52, 56, 64, 108, 124];

export const isBmp = (file: Buffer): boolean =>
  file.length >= 26 && file.toString('latin1', 0, 2) === 'BM' && headerSizes.includes(file.readUInt32LE(14));

/** Throws a BadImage. */
export function readBmpHeader(file: Buffer): Bmp {
  try {
    return parseHeader(file);
  } catch (error) {
    if (error instanceof RangeError) throw new BadImage('is truncated or damaged');
    throw error;
  }
}

function parseHeader(file: Buffer): Bmp {
  const headerBytes = file.readUInt32LE(14);
  const oldest = headerBytes === oldestHeader;
  const width = oldest ? file.readUInt16LE(18) : file.readInt32LE(18);
  const signedHeight = oldest ? file.readInt16LE(20) : file.readInt32LE(22);
  const bits = file.readUInt16LE(oldest ? 24 : 28);
  const compression = oldest ? 0 : file.readUInt32LE(30);
  const hasMasks = compression === 3 || compression === 6;
  if (compression === 1 || compression === 2) throw new BadImage('is a BMP with run-length coding: convert it to PNG');
  if (compression !== 0 && !(hasMasks && (bits === 16 || bits === 32)))
    throw new BadImage('is a BMP of an unknown kind: convert it to PNG');
  if (![1, 4, 8, 16, 24, 32].includes(bits) || width <= 0 || signedHeight === 0) throw new BadImage('is truncated or damaged');
  const usual = bits === 16 ? [0x7c00, 0x3e0, 0x1f] : [0xff0000, 0xff00, 0xff];
  // They are part of the newer headers, and stand behind that of 40 bytes: the same place.
  const masks = hasMasks ? [54, 58, 62].map((at) => file.readUInt32LE(at)) : usual;
  const used = oldest ? 0 : file.readUInt32LE(46);
  return {
    width,
    height: Math.abs(signedHeight),
    topDown: signedHeight < 0,
    bits,
    dataOffset: file.readUInt32LE(10),
    stride: Math.ceil((bits * width) / 32) * 4,
    palette: { offset: 14 + headerBytes, entryBytes: oldest ? 3 : 4, entries: used > 0 && used < 256 ? used : 2 ** Math.min(bits, 8) },
    masks,
  };
}

/** Height × width × RGB. Throws a BadImage when it is not whole. */
export function decodeBmp(file: Buffer): { data: Buffer<ArrayBuffer>; width: number; height: number } {
  const bmp = readBmpHeader(file);
  const { width, height, topDown, bits, dataOffset, stride } = bmp;
  // The last row may lack the bytes that fill it up.
  if (dataOffset + stride * (height - 1) + Math.ceil((bits * width) / 8) > file.length) throw new BadImage('is truncated or damaged');
  const colorOf = bits <= 8 ? paletteColors(file, bmp) : maskColors(bmp.masks);
  const data = Buffer.alloc(3 * width * height);
  let to = 0;
  for (let y = 0; y < height; y += 1) {
    const row = dataOffset + stride * (topDown ? y : height - 1 - y);
    for (let x = 0; x < width; x += 1) {
      const color = colorOf(pixelAt(file, row, x, bits));
      data[to++] = color >>> 16;
      data[to++] = color >>> 8;
      data[to++] = color;
    }
  }
  return { data, width, height };
}

function pixelAt(file: Buffer, row: number, x: number, bits: number): number {
  if (bits === 24) return file.readUIntLE(row + 3 * x, 3);
  if (bits === 32) return file.readUInt32LE(row + 4 * x);
  if (bits === 16) return file.readUInt16LE(row + 2 * x);
  const byte = file[row + ((bits * x) >>> 3)] as number;
  return (byte >>> (8 - bits - ((bits * x) & 7))) & (2 ** bits - 1);
}

/** As 0xRRGGBB. What the palette does not hold is black. */
function paletteColors(file: Buffer, { palette: { offset, entryBytes, entries }, dataOffset }: Bmp): (index: number) => number {
  const colors = new Uint32Array(256);
  for (let i = 0; i < entries && offset + entryBytes * (i + 1) <= Math.min(dataOffset, file.length); i += 1) {
    colors[i] = file.readUIntLE(offset + entryBytes * i, 3);
  }
  return (index) => colors[index] as number;
}

/** As 0xRRGGBB: each channel's bits stretched to 8. */
function maskColors(masks: readonly number[]): (pixel: number) => number {
  const channels = masks.map((mask) => {
    const shift = mask === 0 ? 0 : 31 - Math.clz32(mask & -mask);
    return { mask, shift, max: mask >>> shift };
  });
  if (masks[0] === 0xff0000 && masks[1] === 0xff00 && masks[2] === 0xff) return (pixel) => pixel & 0xffffff;
  return (pixel) =>
    channels.reduce(
      (color, { mask, shift, max }) => (color << 8) | (max === 0 ? 0 : Math.round((((pixel & mask) >>> shift) * 255) / max)),
      0,
    );
}
