/**
 * The names in a zip. All names that no flag marks as UTF-8 are read in one encoding: were it chosen for each name, one folder could
 * become two classes. What tools and operating systems leave behind is recognized here too.
 */
import { crc32 } from 'node:zlib';
import type { NameEncoding } from '../../jobs/specs.ts';

/** The characters of the bytes 128 to 255 in the code pages of DOS that `TextDecoder` does not know. */
const codePages: Partial<Record<NameEncoding, string>> = {
  CP437:
    'ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u00a0',
  CP850:
    'ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜø£Ø×ƒáíóúñÑªº¿®¬½¼¡«»░▒▓│┤ÁÂÀ©╣║╗╝¢¥┐└┴┬├─┼ãÃ╚╔╩╦╠═╬¤ðÐÊËÈıÍÎÏ┘┌█▄¦Ì▀ÓßÔÒõÕµþÞÚÛÙýÝ¯´\u00ad±‗¾¶§÷¸°¨·¹³²■\u00a0',
};

/** What `TextDecoder` calls the others. */
const labels: Record<Exclude<NameEncoding, 'CP437' | 'CP850'>, string> = {
  UTF_8: 'utf-8',
  CP866: 'ibm866',
  GB18030: 'gb18030',
  BIG5: 'big5',
  SHIFT_JIS: 'shift_jis',
  EUC_KR: 'euc-kr',
  WINDOWS_1250: 'windows-1250',
  WINDOWS_1251: 'windows-1251',
  WINDOWS_1252: 'windows-1252',
};

/** A name as bytes; null when they are no text in this encoding. */
function decode(bytes: Buffer, encoding: NameEncoding): string | null {
  const page = codePages[encoding];
  if (page) return bytes.toString('latin1').replace(/[\x80-\xff]/g, (c) => page[c.charCodeAt(0) - 128] as string);
  try {
    return new TextDecoder(labels[encoding as keyof typeof labels], { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

export interface RawName {
  fileNameRaw: Buffer;
  generalPurposeBitFlag: number;
  extraFields: readonly { id: number; data: Buffer }[];
}

/** The name that its entry marks as UTF-8, by the flag or by Info-ZIP's Unicode path (APPNOTE 4.6.9); otherwise null. */
function markedName({ fileNameRaw, generalPurposeBitFlag, extraFields }: RawName): string | null {
  const path = extraFields.find(({ id, data }) => id === 0x7075 && data.length > 5 && data[0] === 1)?.data;
  if (path && path.readUInt32LE(1) === crc32(fileNameRaw)) return decode(path.subarray(5), 'UTF_8');
  return generalPurposeBitFlag & 0x800 ? decode(fileNameRaw, 'UTF_8') : null;
}

const isAscii = (bytes: Buffer): boolean => bytes.every((byte) => byte < 128);

export interface DecodedNames {
  /** In the order of the entries, with "/" between folders, in Unicode's composed form. */
  names: string[];
  /** Of the names that are not marked. */
  encoding: NameEncoding;
  /** Those of them that are not ASCII. */
  unmarked: string[];
}

/** Without `wanted`, names that are not marked are UTF-8 when all of them can be, and otherwise IBM's code page 437, as the format says. */
export function decodeNames(raw: readonly RawName[], wanted: NameEncoding | null): DecodedNames {
  const marked = raw.map(markedName);
  const open = raw.filter((_, i) => marked[i] === null);
  const encoding = wanted ?? (open.every(({ fileNameRaw }) => decode(fileNameRaw, 'UTF_8') !== null) ? 'UTF_8' : 'CP437');
  const unmarked: string[] = [];
  const names = raw.map(({ fileNameRaw }, i) => {
    // Bytes that are no text in the encoding become U+FFFD, which `nameProblem` refuses.
    const text = marked[i] ?? decode(fileNameRaw, encoding) ?? fileNameRaw.toString('latin1').replace(/[\x80-\xff]/g, '\ufffd');
    // PowerShell 5 and .NET before 4.6.1 write Windows' separators.
    const name = text.replaceAll('\\', '/').normalize('NFC');
    if (marked[i] === null && !isAscii(fileNameRaw)) unmarked.push(name);
    return name;
  });
  return { names, encoding, unmarked };
}

const pathCharactersMax = 1000;
const nameBytesMax = 255;

/** Why a path must not be made a file of, or null. */
export function nameProblem(name: string): string | null {
  if (/\p{Cc}/u.test(name)) return 'the name has a control character';
  if (name.includes('\ufffd')) return 'the name is not in the encoding of the zip: pass another `nameEncoding`, or none';
  if (name.includes('\\')) return 'the name has a backslash: names are separated by "/"';
  if (/^(\/|[A-Za-z]:)/.test(name)) return 'the path is absolute';
  const parts = name.replace(/\/$/, '').split('/');
  if (parts.includes('..')) return 'the path leads out of the zip';
  if (parts.includes('.') || parts.includes('')) return 'the path has an empty part';
  if (name.length > pathCharactersMax || parts.some((part) => Buffer.byteLength(part) > nameBytesMax)) {
    return `the name is longer than ${nameBytesMax} bytes, or the path than ${pathCharactersMax} characters`;
  }
  return null;
}

export const imageName = /\.(jpe?g|png|webp|bmp|tiff?)$/i;

/** Files of operating systems. */
const systemFile = /^(Thumbs\.db|desktop\.ini|Icon\r|\.DS_Store|\.directory|\._.*)$/i;
/** Folders of operating systems, drives and tools; hidden ones begin with a dot. */
const toolFolder = /^(__MACOSX|__pycache__|@eaDir|#recycle|\$RECYCLE\.BIN|System Volume Information|lost\+found|\.[^.].*|\.\.[^.].*)$/i;

/**
 * Files of cameras and programs that stand beside images. They are tried as images like any other file, so that an image with such a name is
 * read; one that is no image never refuses the zip. They count in the content hash as left out, as they always did.
 */
export const sidecar =
  /\.(xmp|aae|ini|db|lnk|url|mp4|m4v|mov|avi|mkv|webm|wmv|3gp|mpe?g|mp3|m4a|wav|ogg|docx?|xlsx?|pptx?|od[ts]|rtf|sh|bat|js|css|npz|pkl|h5)$/i;

/** What `name` is left out for: the folder of a tool, or itself as a file that is hidden or an operating system's; null for other names. */
export function leftOutFor(name: string): { folder: string } | { file: string } | null {
  const parts = name.split('/');
  const last = parts.pop() as string;
  const i = parts.findIndex((part) => toolFolder.test(part));
  if (i >= 0) return { folder: parts.slice(0, i + 1).join('/') };
  return systemFile.test(last) || toolFolder.test(last) ? { file: name } : null;
}
