/**
 * Detection datasets as text: a file names the classes (`yoloConfig.ts`), and each image has a label file of its name (`yoloLabels.ts`), with
 * fractions of the upright image: under `labels` in the place of the image's folder `images`, or beside the image. A split is a folder or
 * a list of images; where none is named, `images/train`, `train/images` or `train` are, as they are there.
 */
import { ChildError } from '../../jobs/childio.ts';
import { checkClassNames, document, folderOf, type Layout, type PlacedFile, type Split, splitOf, splitOfYear } from './layout.ts';
import { commonPath, type FileIndex, indexFiles, insideOf, plainPath, withoutEnding } from './paths.ts';
import { plural, printable, someOf } from './problems.ts';
import { type FormReading, readText, warnOfPolygons, warnOfUnlisted } from './reading.ts';
import { readYoloConfig, type YoloConfig } from './yoloConfig.ts';
import { parseLabels } from './yoloLabels.ts';
import type { ZipEntry } from './zip.ts';

const labelBytesMax = 2 ** 20;
const listBytesMax = 64 * 2 ** 20;

/** `path` with its last folder `from`, in capitals too, called `to`; null when there is none. With `to` null that folder is taken out. */
function renamed(path: string, from: string, to: string | null): string | null {
  const parts = path.split('/');
  const i = parts.slice(0, -1).findLastIndex((part) => part.toLowerCase() === from);
  return i < 0 ? null : parts.toSpliced(i, 1, ...(to === null ? [] : [to])).join('/');
}

interface Home {
  split: Split | null;
  /** The image's path inside of its split. */
  inside: string;
}

export async function layOutYolo(reading: FormReading, configFile: ZipEntry): Promise<Layout<ZipEntry>> {
  const { zip, problems, countBoxes } = reading;
  const config = await readYoloConfig(reading, configFile);
  checkClassNames(config.names, problems);
  const images = zip.files.filter(({ name }) => !document.test(name));
  // By lower case, which names a file of a zip as well: a label file that is not found would make its image one that shows nothing.
  const texts = new Map(zip.files.filter(({ name }) => /\.txt$/i.test(name)).map((file) => [file.name.toLowerCase(), file]));
  const { homes, missing, lists } = await findHomes(reading, config, images);
  problems.check((count) => `${plural(count, 'problem')} in the splits.`);
  const absent = `${printable(config.file.name)} names what is not in the zip or holds no images: ${someOf(missing)}.`;
  if (homes.size === 0) {
    throw new ChildError(
      'DATA_INVALID',
      `There are no images for ${printable(config.file.name)}.${missing.length > 0 ? ` ${absent}` : ''}`,
    );
  }
  if (missing.length > 0) reading.warn('SPLIT_MISSING', absent);

  const placed: PlacedFile<ZipEntry>[] = [];
  const ofLabels = new Map<ZipEntry, ZipEntry>();
  let polygons = 0;
  for (const [file, { split, inside }] of homes) {
    const labels = findLabels(texts, file);
    const other = labels && ofLabels.get(labels);
    if (other) problems.add(file.name, `has the same label file as ${printable(other.name)}`, file.name);
    if (labels) ofLabels.set(labels, file);
    const text = labels ? await readText(reading, labels, labelBytesMax, file.name) : '';
    const parsed = parseLabels(text, { classes: config.names.length, keyPoints: config.keyPoints }, (reason) =>
      problems.add((labels ?? file).name, reason, file.name),
    );
    countBoxes(parsed.boxes.length);
    polygons += parsed.polygons;
    const path = [...(split ? [split] : []), renamed(inside, 'images', null) ?? inside].join('/');
    const annotations = { file: (labels ?? file).name, boxes: parsed.boxes, unit: 'SHARE', counted: 'line', size: null } as const;
    placed.push({ file, path, split, label: null, annotations });
  }
  const unlisted = images.filter((file) => !homes.has(file));
  const spare = await spareLabels(reading, texts, new Set([...config.files, ...lists, ...ofLabels.keys()]), unlisted);
  for (const { name } of spare) problems.add(name, 'has no image of its name', name);
  problems.check((count) => `${plural(count, 'problem')} in the labels and splits.`);
  warnOfPolygons(reading, polygons);
  warnOfUnlisted(
    reading,
    unlisted.map(({ name }) => name),
    'list of a split',
  );
  const read = new Set([...config.files, ...lists, ...ofLabels.keys(), ...spare]);
  return {
    images: placed,
    classes: config.names,
    ignored: zip.files.filter((file) => document.test(file.name) && !read.has(file)).map(({ name }) => name),
  };
}

function findLabels(texts: ReadonlyMap<string, ZipEntry>, { name }: ZipEntry): ZipEntry | undefined {
  const stem = withoutEnding(name.toLowerCase());
  const moved = renamed(`${stem}.txt`, 'images', 'labels');
  return (moved === null ? undefined : texts.get(moved)) ?? texts.get(`${stem}.txt`);
}

/**
 * Label files that no image has: something is missing, or is called otherwise. Those are what lies in a folder `labels`, or holds the numbers
 * of a box. Those of unlisted images are not meant.
 */
async function spareLabels(
  { zip }: FormReading,
  texts: ReadonlyMap<string, ZipEntry>,
  used: ReadonlySet<ZipEntry>,
  unlisted: ZipEntry[],
): Promise<ZipEntry[]> {
  const known = new Set([...used, ...unlisted.map((file) => findLabels(texts, file))]);
  const spare: ZipEntry[] = [];
  for (const file of texts.values()) {
    if (known.has(file) || /(^|\/)classes\.txt$/i.test(file.name)) continue;
    const isLabels = folderOf(file.name.toLowerCase()).split('/').includes('labels');
    const text = isLabels || file.sizeBytes > labelBytesMax ? '' : await zip.read(file).catch(() => '');
    if (isLabels || isLabelLine.test(text.toString().trim())) spare.push(file);
  }
  return spare;
}

/** A class, then at least four numbers of which the first has a fraction. */
const isLabelLine = /^\d+\s+-?(\d*\.\d+|\d\.?\d*e-\d+)(\s+-?[\d.]+(e-\d+)?){3,}\s*($|\n)/;

/** The images of the dataset, with the split of each. */
async function findHomes(
  reading: FormReading,
  config: YoloConfig,
  images: ZipEntry[],
): Promise<{ homes: Map<ZipEntry, Home>; missing: string[]; lists: ZipEntry[] }> {
  const root = folderOf(config.file.name);
  const missing: string[] = [];
  const lists: ZipEntry[] = [];
  const sources = config.paths && withoutRepeatedVal(reading, config.paths);
  const named = sources?.filter(({ path }) => /\.txt$/i.test(path.trim())) ?? [];
  const folders = sources
    ? foldersOf(reading, { ...config, paths: sources.filter((source) => !named.includes(source)) }, images, missing)
    : usualFolders(root, images);
  const homes = new Map<ZipEntry, Home>();
  const index = indexFiles(images);
  const texts = indexFiles(reading.zip.files.filter(({ name }) => /\.txt$/i.test(name)));
  for (const { split, path } of named) {
    const [file] = texts.find(path, { split: null, near: root });
    if (file) {
      lists.push(file);
      await readList(reading, { split, file }, index, homes);
    } else missing.push(`${split} (${path})`);
  }

  for (const file of images) {
    const found = folders.filter(({ folder }) => folder === '' || file.name.startsWith(`${folder}/`));
    const [home] = found;
    const listed = homes.get(file);
    if (home && (found.length > 1 || listed)) {
      const where = found.map(({ split, folder }) => `${split} (${printable(folder)})`);
      reading.problems.add(file.name, `lies in the folders of ${[...(listed ? [listed.split] : []), ...where].join(' and ')}`);
    } else if (home) homes.set(file, { split: home.split, inside: file.name.slice(home.folder === '' ? 0 : home.folder.length + 1) });
    else if (!sources && folders.length === 0) {
      homes.set(file, {
        split: null,
        inside: root !== '' && file.name.startsWith(`${root}/`) ? file.name.slice(root.length + 1) : file.name,
      });
    } else if (!listed && named.length === 0) reading.problems.add(file.name, 'lies in no folder of a split', file.name);
  }
  return { homes, missing, lists };
}

/** Some examples validate with what they train on: that judges nothing, so that val is taken from train. */
function withoutRepeatedVal({ warn }: FormReading, paths: NonNullable<YoloConfig['paths']>): NonNullable<YoloConfig['paths']> {
  const of = (split: Split) => paths.filter((one) => one.split === split).map(({ path }) => plainPath(path));
  const [train, val] = [of('train'), of('val')];
  if (train.length === 0 || train.join('\n') !== val.join('\n')) return paths;
  warn(
    'VAL_IS_TRAIN',
    `val names the same images as train (${someOf(val)}): a model would be judged by what it has learned. val is taken from train instead, by the seed.`,
  );
  return paths.filter(({ split }) => split !== 'val');
}

/** The images in a file of paths, one a line. */
async function readList(
  reading: FormReading,
  { split, file }: { split: Split; file: ZipEntry },
  index: FileIndex,
  homes: Map<ZipEntry, Home>,
): Promise<void> {
  const { problems } = reading;
  const text = await readText(reading, file, listBytesMax);
  for (const [i, line] of text.split('\n').entries()) {
    const path = line.trim();
    if (path === '') continue;
    const found = index.find(path, { split, near: folderOf(file.name) });
    const [image] = found;
    const other = image && homes.get(image);
    const about = `line ${i + 1}: the image ${printable(path)}`;
    if (!image) problems.add(file.name, `${about} is not in the zip`, path);
    else if (found.length > 1) problems.add(file.name, `${about} can be ${found.map(({ name }) => printable(name)).join(' or ')}`, path);
    else if (other && other.split !== split) problems.add(file.name, `${about} is in ${other.split} too`, image.name);
    else homes.set(image, { split, inside: insideOf(commonPath(path, image), split) });
  }
}

type SplitFolder = { split: Split; folder: string };

/** Folders of the zip that are meant: as written below `path` or beside the file, otherwise by the longest tail. */
function foldersOf({ problems }: FormReading, { file, paths, base }: YoloConfig, images: ZipEntry[], missing: string[]): SplitFolder[] {
  const root = folderOf(file.name);
  const known = new Set<string>(['']);
  for (const { name } of images) for (let folder = folderOf(name); folder !== ''; folder = folderOf(folder)) known.add(folder);
  return (paths ?? []).flatMap(({ split, path }): SplitFolder[] => {
    const written = [plainPath(`${base}/${path}`), plainPath(path)];
    const below = written.map((one) => [root, one].filter((part) => part !== '').join('/'));
    const exact = [...below, ...written].find((folder) => known.has(folder) && (folder !== '' || root === ''));
    const tails = exact === undefined ? byTail(written[1] as string, known) : [exact];
    if (tails.length > 1) problems.add(file.name, `${split}: the folder ${printable(path)} can be ${someOf(tails)}`);
    if (tails.length === 0) missing.push(`${split} (${path})`);
    return tails.length === 1 ? [{ split, folder: tails[0] as string }] : [];
  });
}

/** The folders that end as `path` does, in as many folders as possible. */
function byTail(path: string, known: ReadonlySet<string>): string[] {
  const parts = path.split('/');
  // Of `../test/images`, which Roboflow always names, `images` alone would be another split's.
  for (let from = 0; from < parts.length && !splitOf(parts[from - 1] ?? ''); from += 1) {
    const tail = parts.slice(from).join('/');
    const found = [...known].filter((folder) => tail !== '' && (folder === tail || folder.endsWith(`/${tail}`)));
    if (found.length > 0) return found;
  }
  return [];
}

/** Where no folders are named: `images/train` or `train/images`, and so on, as they are there; otherwise `train`, and so on. */
function usualFolders(base: string, images: ZipEntry[]): SplitFolder[] {
  const found = new Map<string, SplitFolder>();
  const plain = new Map<string, SplitFolder>();
  // Roboflow's names of classes lie in the folder of a split themselves.
  const root = splitOf(base.slice(base.lastIndexOf('/') + 1)) ? folderOf(base) : base;
  const prefix = root === '' ? '' : `${root}/`;
  for (const { name } of images) {
    if (!name.startsWith(prefix)) continue;
    const [first = '', second = ''] = name.slice(prefix.length).split('/');
    const isImages = (folder: string) => folder.toLowerCase() === 'images';
    const split = isImages(first) ? splitOfYear(second) : isImages(second) ? splitOfYear(first) : undefined;
    if (split) found.set(`${first}/${second}`, { split, folder: `${prefix}${first}/${second}` });
    const alone = splitOfYear(first);
    if (alone) plain.set(first, { split: alone, folder: `${prefix}${first}` });
  }
  return [...(found.size > 0 ? found : plain).values()];
}
