/** What a file is by its first bytes, where it is not what was expected: a message that says so helps more than "damaged". */

const unpackAndZip = 'Unpack it, and make a zip of the folder.';
const asPng = 'convert it to PNG or JPEG';

interface Kind {
  /** The bytes as Latin-1 begin with this text, or match. */
  starts: string | RegExp;
  what: string;
  /** In the place of the zip. */
  todo: string;
}

const kinds: readonly Kind[] = [
  { starts: /^$/, what: 'empty', todo: 'Upload it again.' },
  {
    starts: /^version https:\/\/git-lfs/,
    what: 'a pointer of Git LFS, not the file itself',
    todo: 'Run `git lfs pull`, then upload the file.',
  },
  {
    starts: /^(\xef\xbb\xbf)?\s*<(!doctype\s+html|html|head|body)/i,
    what: 'a web page (HTML)',
    todo: 'The download gave a page, perhaps for logging in: download the file itself.',
  },
  { starts: '\x1f\x8b', what: 'a gzip archive (.tar.gz)', todo: unpackAndZip },
  { starts: 'BZh', what: 'a bzip2 archive (.tar.bz2)', todo: unpackAndZip },
  { starts: '\xfd7zXZ', what: 'an xz archive (.tar.xz)', todo: unpackAndZip },
  { starts: '\x28\xb5\x2f\xfd', what: 'a Zstandard archive (.tar.zst)', todo: unpackAndZip },
  { starts: /^[\s\S]{257}ustar/, what: 'a tar archive', todo: unpackAndZip },
  { starts: '7z\xbc\xaf', what: 'a 7z archive', todo: unpackAndZip },
  { starts: 'Rar!\x1a\x07', what: 'a RAR archive', todo: unpackAndZip },
  { starts: /^(\x89PNG|\xff\xd8\xff|RIFF[\s\S]{4}WEBP|GIF8)/, what: 'an image', todo: 'Put it into a zip.' },
  { starts: '%PDF-', what: 'a PDF', todo: 'Put images into a zip.' },
  { starts: 'PAR1', what: 'a Parquet file', todo: 'Write its images into files, and make a zip of them.' },
  { starts: /^\s*[{[]/, what: 'a JSON file', todo: 'Put it into a zip together with its images.' },
];

const imageKinds: readonly { starts: string | RegExp; what: string }[] = [
  ...kinds.filter(({ what }) => what !== 'an image'),
  { starts: 'PK\x03\x04', what: 'a zip: unpack it' },
  { starts: 'II*\0', what: 'a TIFF that is truncated or damaged' },
  { starts: 'MM\0*', what: 'a TIFF that is truncated or damaged' },
  { starts: 'GIF8', what: `a GIF: ${asPng}` },
  { starts: /^[\s\S]{4}ftyp(avif|avis)/, what: `an AVIF image: ${asPng}` },
  { starts: /^[\s\S]{4}ftyp(heic|heix|hevc|heim|mif1|msf1)/, what: `a HEIC image: ${asPng}` },
  { starts: /^(\xef\xbb\xbf)?\s*<(\?xml|svg)/i, what: `an SVG or another XML file: ${asPng}` },
  { starts: '\x00\x00\x00\x0cjP', what: `a JPEG 2000 image: ${asPng}` },
  { starts: '\x00\x00\x00\x0cJXL', what: `a JPEG XL image: ${asPng}` },
  { starts: '8BPS', what: `a Photoshop file: ${asPng}` },
  { starts: '\x76\x2f\x31\x01', what: `an OpenEXR image: ${asPng}` },
  { starts: /^P[1-7]\s/, what: `a PNM image: ${asPng}` },
  { starts: '\x93NUMPY', what: `a NumPy array: ${asPng}` },
  { starts: /^[\s\S]{128}DICM/, what: `a DICOM file: ${asPng}` },
];

/** How many of a file's first bytes tell its kind. */
export const headBytes = 264;

function kindOf<K extends Pick<Kind, 'starts'>>(known: readonly K[], head: Buffer): K | undefined {
  const text = head.subarray(0, headBytes).toString('latin1');
  return known.find(({ starts }) => (typeof starts === 'string' ? text.startsWith(starts) : starts.test(text)));
}

/** "The file is a RAR archive. Unpack it, …"; null when these bytes are none of the known kinds. */
export function otherThanZip(head: Buffer): string | null {
  const kind = kindOf(kinds, head);
  return kind ? `The file is ${kind.what}, not a zip. ${kind.todo}` : null;
}

/** What a file is that should be an image: "a GIF: convert it to PNG or JPEG". */
export const otherThanImage = (head: Buffer): string | null => kindOf(imageKinds, head)?.what ?? null;

const methods: Record<number, string> = {
  1: 'Shrink',
  6: 'Implode',
  9: 'Deflate64, which Windows Explorer uses for large files',
  12: 'bzip2',
  14: 'LZMA',
  93: 'Zstandard',
  95: 'xz',
  98: 'PPMd',
  99: 'AES encryption',
};

/** Why an entry that is compressed by `method` is not read. */
export const methodProblem = (method: number): string =>
  `is compressed by ${methods[method] ?? `method ${method}`}: only deflate is read, so make the zip again with \`zip -r\`, 7-Zip (method Deflate) or Python's zipfile`;
