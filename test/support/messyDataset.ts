/** A dataset of 300 images with every defect at once that people's datasets have, as one zip. */
import { digit, photo, type RawEntry, rawZip } from './images.ts';
import { oddImages } from './oddImages.ts';

/** The first letters of the names in code page 866. */
const cyrillic = Buffer.from('aaaee2', 'hex');
const name = (before: string, after: string): Buffer => Buffer.concat([Buffer.from(before), cyrillic, Buffer.from(after)]);

const goodLines = ['0 .5 .5 .5 .5', '1.0 0.5 0.5 0.25 0.25'];
/** What stands in label files: the last two make their image unusable. */
const oddLines = [
  '0 0.25 0.25 0.75 0.25 0.5 0.5',
  '1 0.5 0.25 0.75 0.5 0.5 0.75 0.25 0.5',
  '1.0e+00 .5 .5 .5 .5',
  '0 .5 .5 0 .1',
  '0 .5 .5 .5 .5\n0 .5 .5 .5 .5',
  '',
  '\ufeff0 .5 .5 .5 .5',
  '7 .5 .5 .1 .1',
  '0 .5 nan .1 .1',
];

export interface Messy {
  zip: Buffer;
  /** Its arguments of `createDataset`. */
  options: { nameEncoding: 'CP866'; onProblem: 'LEAVE_OUT'; leftOutShareMax: number };
  images: number;
  /** Each image's bytes by its path in the dataset. */
  bytes: Map<string, Buffer>;
}

/** Form YOLO: backslashes, names in CP866, lists of images of another machine, odd and damaged images, odd labels, what tools leave. */
export async function messyDataset(): Promise<Messy> {
  const odd = [...(await oddImages())].filter(([, bytes]) => bytes.length < 60_000);
  const picked = odd.filter((_, i) => i % 2 === 0).slice(0, 180);
  const digits = await Promise.all(
    Array.from({ length: 118 }, async (_, i) => [`digit-${i}.png`, await digit(i % 10, Math.floor(i / 10))] as const),
  );
  const large = ['large.tif', await photo(640, 480).tiff({ compression: 'lzw' }).toBuffer()] as const;
  const pointer = ['pointer.jpg', Buffer.from('version https://git-lfs.github.com/spec/v1\n')] as const;
  const all = [...digits, ...picked, large, pointer];

  const entries: RawEntry[] = [];
  const bytes = new Map<string, Buffer>();
  const lists: Record<'train' | 'val', string[]> = { train: [], val: [] };
  for (const [i, [file, data]] of all.entries()) {
    const split = i % 4 === 0 ? 'val' : 'train';
    entries.push({ name: name(`images\\${split}\\`, file), data });
    const lines = i % 5 === 0 ? (oddLines[(i / 5) % oddLines.length] as string) : goodLines.join('\n');
    entries.push({ name: name(`labels\\${split}\\`, `${file.replace(/\.[^.]*$/, '')}.txt`), data: lines });
    bytes.set(`${split}/кот${file}`, data);
    lists[split].push(`/home/ann/pets/images/${split}/кот${file}`);
  }
  const text = (of: Record<string, string>) => Object.entries(of).map(([path, data]): RawEntry => ({ name: path, data, method: 8 }));
  entries.push(
    ...text({
      'data.yaml': '\ufeffpath: /home/ann/pets\ntrain: train.txt\nval: val.txt\ntest: ../test/images\nnames: [cat, dog, cow]\n',
      'train.txt': lists.train.join('\r\n'),
      'val.txt': lists.val.join('\n'),
      'images\\train\\.ipynb_checkpoints\\a-checkpoint.png': 'x',
      'images\\@eaDir\\a.png\\SYNO.jpg': 'x',
      '.git\\HEAD': 'ref',
      'images\\train\\Thumbs.db': 'x',
      'images\\train\\.DS_Store': 'x',
      'README.md': 'x',
      'labels\\train.cache': 'x',
    }),
  );
  const zip = rawZip(entries);
  // One entry's bytes are damaged in the zip.
  const damaged = zip.indexOf(digits[9]?.[1] as Buffer);
  zip[damaged + 50] = (zip[damaged + 50] as number) ^ 0xff;
  return { zip, options: { nameEncoding: 'CP866', onProblem: 'LEAVE_OUT', leftOutShareMax: 0.6 }, images: all.length, bytes };
}
