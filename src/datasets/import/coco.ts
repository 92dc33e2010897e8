/**
 * Detection datasets in COCO's form (Lin et al. 2014, "Microsoft COCO: Common Objects in Context"): a JSON file for each split, or one
 * for images that are split by seed, with `images`, `annotations` (`bbox` is [x, y, width, height] in pixels of the upright image) and
 * `categories`. The split is what the file is called after, `instances_train2017.json`, or the folder that it lies in.
 */
import { z } from 'zod';
import { ChildError } from '../../jobs/childio.ts';
import { boxesPerImageMax } from '../../jobs/specs.ts';
import { BadJson, readArrays } from './json.ts';
import {
  type Annotations,
  checkClassNames,
  document,
  folderOf,
  type Layout,
  type PlacedFile,
  type Split,
  splitOf,
  splitOfYear,
} from './layout.ts';
import { type Problems, plural, printable } from './problems.ts';
import { type Contents, readBytes } from './read.ts';
import type { ZipEntry } from './zip.ts';

const id = z.union([z.int(), z.string().max(200)]);
const pixels = z.number();

const CocoImage = z.object({ id, file_name: z.string().min(1).max(1000), width: z.int().optional(), height: z.int().optional() });
const CocoCategory = z.object({ id: z.int(), name: z.string() });
const CocoAnnotation = z.object({
  id: z.int(),
  image_id: id,
  category_id: z.int(),
  /** Of many objects in one region, which nobody has marked one by one. */
  iscrowd: z.union([z.int(), z.boolean()]).optional(),
  bbox: z.tuple([pixels, pixels, pixels, pixels], 'is a list of 4 numbers'),
});

interface CocoFile {
  file: ZipEntry;
  split: Split | null;
  images: Map<number | string, { fileName: string; annotations: Annotations }>;
  /** Sorted by id. */
  categories: z.infer<typeof CocoCategory>[];
  crowds: number;
}

export interface CocoLayout extends Layout<ZipEntry> {
  /** Annotations of crowds. */
  crowds: number;
  /** Images that no file names. */
  unlisted: string[];
}

export async function layOutCoco(zip: Contents, count: (boxes: number) => void, problems: Problems): Promise<CocoLayout> {
  const sources = withSplits(zip.files.filter(({ name }) => /\.json$/i.test(name)));
  const others = zip.files.filter(({ name }) => !/\.json$/i.test(name));
  const byPlace = placesOf(others);
  const used = new Set<ZipEntry>();
  const images: PlacedFile<ZipEntry>[] = [];
  let names: string[] | null = null;
  let sameAs = '';
  let crowds = 0;
  for (const source of sources) {
    const coco = await readCoco(zip, source, count, problems);
    problems.check((n) => `${plural(n, 'problem')} in ${printable(source.file.name)}.`);
    crowds += coco.crowds;
    const categories = JSON.stringify(coco.categories);
    if (names !== null && categories !== sameAs) {
      throw new ChildError(
        'DATA_INVALID',
        `${printable(source.file.name)} has other categories than ${printable(String(sources[0]?.file.name))}.`,
      );
    }
    sameAs = categories;
    names = coco.categories.map(({ name }) => name.normalize('NFC'));
    for (const { fileName, annotations } of coco.images.values()) {
      const found = findImage(byPlace, coco, fileName);
      const [file] = found;
      if (!file)
        problems.add(
          source.file.name,
          `the image ${printable(fileName)} is not in the zip, neither beside it nor in a folder images or of the split`,
        );
      else if (found.length > 1)
        problems.add(source.file.name, `the image ${printable(fileName)} can be ${found.map(({ name }) => printable(name)).join(' or ')}`);
      else if (used.has(file)) problems.add(source.file.name, `the image ${printable(fileName)} was named before`);
      else {
        used.add(file);
        images.push({ file, path: [...(coco.split ? [coco.split] : []), fileName].join('/'), split: coco.split, label: null, annotations });
      }
    }
    problems.check((n) => `${plural(n, 'image')} of ${printable(source.file.name)} cannot be told.`);
  }
  if (images.length === 0) throw new ChildError('DATA_INVALID', 'There are no images in the lists `images` of the JSON files.');
  checkClassNames(names ?? [], problems);
  const documents = others.filter((file) => !used.has(file) && document.test(file.name));
  const unlisted = others.filter((file) => !used.has(file) && !document.test(file.name)).map(({ name }) => name);
  return { images, classes: names ?? [], ignored: documents.map(({ name }) => name), crowds, unlisted };
}

/** One file may stand for all images; of several each stands for another split. */
function withSplits(files: ZipEntry[]): { file: ZipEntry; split: Split | null }[] {
  const sources = files.map((file) => ({ file, split: splitOfFile(file.name) }));
  for (const { file, split } of sources.length > 1 ? sources : []) {
    const same = sources.filter((other) => other.split === split).map((other) => printable(other.file.name));
    if (split === null) {
      throw new ChildError(
        'DATA_INVALID',
        `There are several JSON files, and the name of ${printable(file.name)} tells no split: train, val or test.`,
      );
    }
    if (same.length > 1) throw new ChildError('DATA_INVALID', `${same.slice(0, 5).join(', ')} are all for the split ${split}: keep one.`);
  }
  return sources;
}

function splitOfFile(name: string): Split | null {
  const folders = name.split('/');
  const words = (folders.pop() as string).split(/[^A-Za-z]+/).flatMap((word) => splitOf(word) ?? []);
  const said = new Set(words.length > 0 ? words : folders.flatMap((folder) => splitOfYear(folder) ?? []));
  return said.size === 1 ? ([...said][0] as Split) : null;
}

/** A path whose folders that mean a split are called by its usual name, so that train2017 and train are the same place. */
const placeOf = (path: string): string =>
  path
    .split('/')
    .map((part) => splitOfYear(part) ?? part)
    .join('/');

function placesOf(files: ZipEntry[]): Map<string, ZipEntry[]> {
  const places = new Map<string, ZipEntry[]>();
  for (const file of files) {
    const same = places.get(placeOf(file.name)) ?? [];
    same.push(file);
    places.set(placeOf(file.name), same);
  }
  return places;
}

/** An image lies beside the JSON file or beside its folder, there also in `images` or in the folder of the split. */
function findImage(places: Map<string, ZipEntry[]>, { file, split }: CocoFile, fileName: string): ZipEntry[] {
  const home = folderOf(file.name);
  const inner = ['', 'images/', ...(split ? [`${split}/`, `images/${split}/`, `${split}/images/`] : [])];
  const candidates = [home, folderOf(home)].flatMap((base) =>
    inner.map((folder) => `${base === '' ? '' : `${placeOf(base)}/`}${folder}${placeOf(fileName)}`),
  );
  return [...new Set(candidates)].flatMap((place) => places.get(place) ?? []);
}

async function readCoco(
  zip: Contents,
  { file, split }: Pick<CocoFile, 'file' | 'split'>,
  count: (boxes: number) => void,
  problems: Problems,
): Promise<CocoFile> {
  const coco: CocoFile = { file, split, images: new Map(), categories: [], crowds: 0 };
  const bytes = await readBytes(zip, file, problems);
  if (!bytes) return coco;
  const add = (reason: string) => problems.add(file.name, reason);
  const read =
    <T>(schema: z.ZodType<T>, what: string, use: (value: T) => void) =>
    (element: unknown, index: number) => {
      const { success, data, error } = schema.safeParse(element);
      if (success) use(data);
      else add(`${what}[${index}]: ${error.issues[0]?.path.join('.') ?? ''} ${error.issues[0]?.message}`);
    };
  try {
    const found = readArrays(bytes, {
      images: read(CocoImage, 'images', ({ id, file_name, width, height }) => {
        const fileName = file_name.normalize('NFC').replace(/^(\.\/)+/, '');
        const size = width === undefined || height === undefined ? null : { width, height };
        if (coco.images.has(id)) add(`two images have the id ${printable(String(id))}`);
        coco.images.set(id, { fileName, annotations: { file: file.name, boxes: [], unit: 'PIXEL', place: 'annotation', size } });
      }),
      categories: read(CocoCategory, 'categories', (category) => coco.categories.push(category)),
    });
    // In a second pass, because the annotations may stand before what they name.
    const labels = labelsOf(coco.categories, add);
    const foundToo = readArrays(bytes, {
      annotations: read(CocoAnnotation, 'annotations', ({ id, image_id, category_id, iscrowd, bbox: [x, y, width, height] }) => {
        const image = coco.images.get(image_id);
        const label = labels.get(category_id);
        const problem = (reason: string) => add(`annotation ${id}: ${reason}`);
        if (!image) problem(`there is no image ${printable(String(image_id))}`);
        else if (label === undefined) problem(`there is no category ${category_id}`);
        else if (width <= 0 || height <= 0) problem('the width and the height of a box are above 0');
        else {
          const { boxes } = image.annotations;
          count(1);
          if (iscrowd) coco.crowds += 1;
          // Told once for an image.
          if (boxes.length > boxesPerImageMax) return;
          boxes.push({ label, x, y, width, height, ...(iscrowd ? { crowd: true } : {}), at: id });
          if (boxes.length > boxesPerImageMax) problem(`the image ${printable(image.fileName)} has more than ${boxesPerImageMax} boxes`);
        }
      }),
    });
    for (const key of ['images', 'annotations', 'categories']) if (!found.has(key) && !foundToo.has(key)) add(`has no list ${key}`);
  } catch (error) {
    if (!(error instanceof BadJson)) throw error;
    add(error.message);
  }
  return coco;
}

/** The place of each category in the order of the ids. */
function labelsOf(categories: CocoFile['categories'], add: (reason: string) => void): Map<number, number> {
  categories.sort((a, b) => a.id - b.id);
  const labels = new Map<number, number>();
  for (const [label, { id }] of categories.entries()) {
    if (labels.has(id)) add(`two categories have the id ${id}`);
    labels.set(id, label);
  }
  return labels;
}
