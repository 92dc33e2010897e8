/**
 * Which image files every decoder reads alike: JPEG, PNG and WebP in the forms that cameras and programs usually write. What is not known
 * to be plain is stored as PNG instead (`storedBytes`), so this list may be short, but never too long: the trainer decodes with another
 * library than import and serving do.
 */
import { crc32 } from 'node:zlib';

export function isPlain(file: Buffer): boolean {
  try {
    if (file.readUInt16BE(0) === 0xffd8) return isPlainJpeg(file);
    if (file.toString('latin1', 0, 8) === '\x89PNG\r\n\x1a\n') return isPlainPng(file);
    return file.toString('latin1', 0, 4) === 'RIFF' && file.toString('latin1', 8, 12) === 'WEBP' && isPlainWebp(file);
  } catch (error) {
    // It reads behind its end.
    if (error instanceof RangeError) return false;
    throw error;
  }
}

/** Baseline and progressive, of 8 bits, grey or in three channels: not CMYK, arithmetic or lossless coding. */
function isPlainJpeg(file: Buffer): boolean {
  let exif = 0;
  let frames = 0;
  for (let at = 2; ; ) {
    if (file.readUInt8(at) !== 0xff) return false;
    const marker = file.readUInt8(at + 1);
    if (marker === 0xff) {
      at += 1;
      continue;
    }
    const length = file.readUInt16BE(at + 2);
    const content = file.subarray(at + 4, at + 2 + length);
    if (content.length !== length - 2) return false;
    // The first scan: what follows is read by the same library in both.
    if (marker === 0xda) return frames === 1 && exif <= 1;
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      frames += 1;
      const [precision, channels] = [content.readUInt8(0), content.readUInt8(5)];
      if (marker > 0xc2 || precision !== 8 || content.readUInt16BE(1) === 0 || (channels !== 1 && channels !== 3)) return false;
    }
    if (marker === 0xe1 && content.toString('latin1', 0, 4) === 'Exif') {
      exif += 1;
      if (!isPlainExif(content)) return false;
    }
    at += 2 + length;
  }
}

/** Chunks that do not change how pixels are read, before the pixels and behind them. `tEXt` is looked at. */
const pngBefore = ['PLTE', 'tRNS', 'gAMA', 'cHRM', 'sRGB', 'pHYs', 'tIME', 'bKGD', 'sBIT', 'hIST', 'tEXt', 'eXIf'];
const pngBehind = ['tIME', 'tEXt'];
const textBytesMax = 4096;

/** Of up to 8 bits, whole, with each checksum right. */
function isPlainPng(file: Buffer): boolean {
  let pixels: 'before' | 'now' | 'behind' = 'before';
  const seen = new Set<string>();
  for (let at = 8; ; ) {
    const length = file.readUInt32BE(at);
    const type = file.toString('latin1', at + 4, at + 8);
    const content = file.subarray(at + 8, at + 8 + length);
    if (crc32(file.subarray(at + 4, at + 8 + length)) !== file.readUInt32BE(at + 8 + length)) return false;
    if (type === 'IEND') return pixels !== 'before' && length === 0 && at + 12 === file.length;
    if (at === 8) {
      if (type !== 'IHDR' || length !== 13 || content.readUInt8(8) > 8) return false;
    } else if (type === 'IDAT') {
      if (pixels === 'behind') return false;
      pixels = 'now';
    } else {
      if (pixels === 'now') pixels = 'behind';
      if (!(pixels === 'before' ? pngBefore : pngBehind).includes(type)) return false;
      if (type !== 'tEXt' && seen.has(type)) return false;
      if (type === 'tEXt' && (length > textBytesMax || content.toString('latin1').startsWith('Raw profile'))) return false;
      if (type === 'eXIf' && !isPlainExif(content)) return false;
    }
    seen.add(type);
    at += 12 + length;
  }
}

/** Still images, lossy or not. */
function isPlainWebp(file: Buffer): boolean {
  const end = 8 + file.readUInt32LE(4);
  if (end !== file.length) return false;
  const types: string[] = [];
  for (let at = 12; at < end; ) {
    const type = file.toString('latin1', at, at + 4);
    const length = file.readUInt32LE(at + 4);
    const content = file.subarray(at + 8, at + 8 + length);
    if (content.length !== length || types.includes(type)) return false;
    if (!['VP8 ', 'VP8L', 'VP8X', 'ALPH', 'ICCP', 'EXIF', 'XMP '].includes(type)) return false;
    if (type === 'EXIF' && !isPlainExif(content)) return false;
    types.push(type);
    at += 8 + length + (length % 2);
  }
  return types.filter((type) => type === 'VP8 ' || type === 'VP8L').length === 1;
}

const orientationTag = 0x0112;
const shortType = 3;

/** Whether every reader finds the same orientation: none, or one whole number from 1 to 8 in a first directory that is whole. */
function isPlainExif(content: Buffer): boolean {
  const tiff = content.toString('latin1', 0, 6) === 'Exif\0\0' ? content.subarray(6) : content;
  const order = tiff.toString('latin1', 0, 4);
  if (order !== 'II*\0' && order !== 'MM\0*') return false;
  const u16 = (at: number) => (order === 'II*\0' ? tiff.readUInt16LE(at) : tiff.readUInt16BE(at));
  const u32 = (at: number) => (order === 'II*\0' ? tiff.readUInt32LE(at) : tiff.readUInt32BE(at));
  const first = u32(4);
  const entries = Array.from({ length: u16(first) }, (_, i) => first + 2 + 12 * i);
  // The offset of the next directory ends the first one.
  if (first < 8 || first + 6 + 12 * entries.length > tiff.length) return false;
  const found = entries.filter((at) => u16(at) === orientationTag);
  return found.length === 0 || (found.length === 1 && found.every((at) => isOrientation(u16(at + 2), u32(at + 4), u16(at + 8))));
}

const isOrientation = (type: number, count: number, value: number): boolean =>
  type === shortType && count === 1 && value >= 1 && value <= 8;
