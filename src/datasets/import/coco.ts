/**
 * Detection datasets in COCO's form (Lin et al. 2014, "Microsoft COCO: Common Objects in Context"): a JSON file for each split, or one
 * for images that are split by seed. It has `images`, `annotations` (`bbox` is [x, y, width, height] in pixels of the upright image) and
 * `categories`. The split is what the file is called after, `instances_train2017.json`, or the folder that it lies in; of a file for all
 * images, the folder that an image lies in.
 */
import { z } from 'zod';
import { ChildError } from '../../jobs/childio.ts';
import { boxesPerImageMax } from '../../jobs/manifest.ts';
import { BadJson, keysOf, readArrays } from './json.ts';
import {
  type Annotations,
  checkClassNames,
  document,
  type Layout,
  type PlacedFile,
  type Split,
  splitFolderOf,
  splitOf,
  splitOfYear,
} from './layout.ts';
import { commonPath, type FileIndex, indexFiles, insideOf } from './paths.ts';
import { plural, printable, someOf } from './problems.ts';
import {
  type Box,
  boxAround,
  boxAroundTurned,
  type FormReading,
  findNamedImage,
  readBytes,
  warnOfPolygons,
  warnOfUnlisted,
} from './reading.ts';
import type { ZipEntry } from './zip.ts';

const lists = ['images', 'annotations', 'categories'];
const labelMeKeys = ['shapes', 'imagePath'];
/** Of a task that is a file by itself. */
const taskKeys = ['data', 'annotations'];
/** A list of such tasks, or of what Label Studio's JSON-MIN makes of them. */
const isTaskList = (bytes: Buffer): boolean =>
  /^[\s\ufeff]*\[\s*\{.*"(annotations|annotation_id)"/s.test(bytes.toString('utf8', 0, 2 ** 14));

/** Tools write ids of any type, and null for what they do not know. */
const id = z.union([z.number(), z.string().max(200)], 'is a number, or a text of at most 200 characters');
const size = z.int('is a number of pixels').nullish();
/** x and y by turns. */
const polygon = z
  .array(z.number())
  .min(6)
  .refine((numbers) => numbers.length % 2 === 0);

const fileName = 'is the path of an image, of at most 1000 characters';
const CocoImage = z.object(
  { id, file_name: z.string(fileName).min(1, fileName).max(1000, fileName), width: size, height: size },
  'is an object',
);
const CocoCategory = z.object({ id, name: z.string('is a text'), supercategory: z.string().nullish().catch(null) }, 'is an object');
const fourNumbers = 'is a list of 4 numbers';
const coordinate = z.number(fourNumbers);
const CocoAnnotation = z.object(
  {
    id: z.unknown().optional(),
    image_id: id,
    category_id: id,
    /** Of many objects in one region, which nobody has marked one by one. */
    iscrowd: z.union([z.number(), z.boolean()], 'is 0 or 1, or true or false').nullish(),
    bbox: z.tuple([coordinate, coordinate, coordinate, coordinate], fourNumbers).nullish(),
    segmentation: z.array(polygon).min(1).nullish().catch(null),
    /** CVAT's: degrees. */
    attributes: z
      .object({ rotation: z.number().default(0) })
      .nullish()
      .catch(null),
  },
  'is an object',
);
type CocoAnnotation = z.infer<typeof CocoAnnotation>;

interface Category {
  id: number | string;
  name: string;
  supercategory: string | null;
}

interface CocoImage {
  fileName: string;
  /** Undefined where that was a problem. */
  file: ZipEntry | undefined;
  annotations: Annotations;
  /** Of its boxes, the ids of their categories. */
  categories: string[];
}

interface CocoFile {
  file: ZipEntry;
  split: Split | null;
  images: Map<string, CocoImage>;
  /** Sorted by id. */
  categories: Category[];
  /** By id, how many annotations are of it. */
  used: Map<string, number>;
  crowds: number;
  polygons: number;
}

type JsonFiles = Record<'coco' | 'damaged' | 'labelMe' | 'labelStudio', ZipEntry[]>;

/**
 * The JSON files that hold at least two of COCO's three lists, those of LabelMe and of Label Studio itself, and those that are damaged: they may be
 * meant, and must not be passed over.
 */
export async function findCocoFiles(reading: FormReading): Promise<JsonFiles> {
  const found: JsonFiles = { coco: [], damaged: [], labelMe: [], labelStudio: [] };
  for (const file of reading.zip.files.filter(({ name }) => /\.json$/i.test(name))) {
    const bytes = await reading.zip.read(file).catch(() => null);
    try {
      const keys = bytes ? keysOf(bytes, [...new Set([...lists, ...labelMeKeys, ...taskKeys])]) : [];
      if (lists.filter((list) => keys.includes(list)).length >= 2) found.coco.push(file);
      else if (labelMeKeys.every((key) => keys.includes(key))) found.labelMe.push(file);
      else if (taskKeys.every((key) => keys.includes(key))) found.labelStudio.push(file);
      if (!bytes) found.damaged.push(file);
    } catch (error) {
      if (!(error instanceof BadJson)) throw error;
      found[bytes && isTaskList(bytes) ? 'labelStudio' : 'damaged'].push(file);
    }
  }
  return { ...found, coco: withoutOtherTasks(found.coco) };
}

/** COCO publishes the same images with captions, keypoints and more: with `instances_…` beside them, those are not meant. */
function withoutOtherTasks(files: ZipEntry[]): ZipEntry[] {
  const others = /(^|\/)(captions|person_keypoints|keypoints|panoptic|stuff|image_info)[^/]*\.json$/i;
  const meant = files.filter(({ name }) => !others.test(name));
  return meant.length > 0 ? meant : files;
}

export async function layOutCoco(reading: FormReading, jsonFiles: ZipEntry[]): Promise<Layout<ZipEntry>> {
  const { zip, problems } = reading;
  const sources = withSplits(jsonFiles);
  const others = zip.files.filter((file) => !jsonFiles.includes(file));
  const index = indexFiles(others.filter(({ name }) => !document.test(name)));
  const used = new Set<ZipEntry>();
  const read: CocoFile[] = [];
  for (const source of sources) {
    read.push(await readCoco(reading, source, index, used));
    problems.check((n) => `${plural(n, 'problem')} in ${printable(source.file.name)}.`);
  }
  const classes = mergeCategories(reading, read);
  const crowdsOnly: string[] = [];
  const images: PlacedFile<ZipEntry>[] = [];
  const byFolder = read.some(({ images }) => [...images.values()].some(({ file }) => file && splitFolderOf(file.name) === 'train'));
  for (const coco of read) {
    for (const { fileName, file, annotations, categories } of coco.images.values()) {
      if (!file) continue;
      const labels = categories.map((key) => classes.labels.get(coco)?.get(key) as number);
      const boxes = annotations.boxes.map((box, i) => ({ ...box, label: labels[i] as number }));
      if (boxes.length > 0 && boxes.every((box) => box.crowd)) crowdsOnly.push(file.name);
      else {
        const split = coco.split ?? (byFolder ? (splitFolderOf(file.name) ?? null) : null);
        const inside = commonPath(fileName, file);
        const path = [...(split ? [split] : []), coco.split ? inside : insideOf(inside, split)].join('/');
        images.push({ file, path, split, label: null, annotations: { ...annotations, boxes } });
      }
    }
  }
  if (images.length === 0) throw new ChildError('DATA_INVALID', 'There are no images in the lists `images` of the JSON files.');
  warnOfCoco(reading, read, crowdsOnly);
  const rest = others.filter((file) => !used.has(file)).map(({ name }) => name);
  warnOfUnlisted(
    reading,
    rest.filter((name) => !document.test(name)),
    'JSON file',
  );
  return { images, classes: classes.names, ignored: rest.filter((name) => document.test(name)) };
}

function warnOfCoco(reading: FormReading, read: CocoFile[], crowdsOnly: string[]): void {
  const { warn } = reading;
  const sum = (of: (file: CocoFile) => number) => read.reduce((total, file) => total + of(file), 0);
  const crowds = sum((file) => file.crowds);
  if (crowds > 0)
    warn(
      'CROWDS_IGNORED',
      `${plural(crowds, 'annotation is a crowd', 'annotations are crowds')} (iscrowd): training and evaluation ignore their class there.`,
    );
  if (crowdsOnly.length > 0)
    warn(
      'IMAGES_OF_CROWDS',
      `${plural(crowdsOnly.length, 'image that shows', 'images that show')} crowds only left out: ${someOf(crowdsOnly)}.`,
    );
  warnOfPolygons(
    reading,
    sum((file) => file.polygons),
  );
}

/** One file may stand for all images; of several each stands for another split. */
function withSplits(files: ZipEntry[]): { file: ZipEntry; split: Split | null }[] {
  const sources = files.map((file) => ({ file, split: splitOfFile(file.name) }));
  for (const { file, split } of sources.length > 1 ? sources : []) {
    const same = sources.filter((other) => other.split === split).map((other) => printable(other.file.name));
    if (split === null) {
      throw new ChildError(
        'DATA_INVALID',
        `There are several JSON files, ${someOf(files.map(({ name }) => name))}, and the name of ${printable(file.name)} tells no split (train, val or test). Keep the one that is meant, or name a split in each.`,
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

async function readCoco(
  reading: FormReading,
  { file, split }: Pick<CocoFile, 'file' | 'split'>,
  index: FileIndex,
  used: Set<ZipEntry>,
): Promise<CocoFile> {
  const { problems, countBoxes } = reading;
  const coco: CocoFile = { file, split, images: new Map(), categories: [], used: new Map(), crowds: 0, polygons: 0 };
  const bytes = await readBytes(reading, file);
  if (!bytes) return coco;
  const add = (reason: string, image?: string) => problems.add(file.name, reason, image);
  const element =
    <T>(schema: z.ZodType<T>, what: string, use: (value: T, index: number) => void) =>
    (raw: unknown, index: number) => {
      const { success, data, error } = schema.safeParse(raw);
      if (success) use(data, index);
      else
        add([`${what}[${index}]:`, ...(error.issues[0]?.path ?? []).slice(0, 1), error.issues[0]?.message].join(' '), imageOf(coco, raw));
    };
  try {
    const found = readArrays(bytes, {
      images: element(CocoImage, 'images', ({ id, file_name, width, height }) => {
        const fileName = file_name.normalize('NFC').replace(/^(\.\/)+/, '');
        if (coco.images.has(String(id))) add(`two images have the id ${printable(String(id))}`);
        const declared = width && height ? { width, height } : null;
        const annotations: Annotations = { file: file.name, boxes: [], unit: 'PIXEL', counted: 'annotation', size: declared };
        const image = findNamedImage(reading, index, { source: file, split, used }, fileName);
        coco.images.set(String(id), { fileName, file: image, annotations, categories: [] });
      }),
      categories: element(CocoCategory, 'categories', ({ id, name, supercategory }) =>
        coco.categories.push({ id, name: name.normalize('NFC').trim(), supercategory: supercategory ?? null }),
      ),
      annotations: null,
    });
    for (const key of lists) if (!found.has(key)) add(`has no list ${key}`);
    sortCategories(coco, add);
    // What is wrong with the annotations would follow from it.
    if (problems.blocking > 0) return coco;
    // In a second pass, because the annotations may stand before what they name.
    readArrays(bytes, {
      annotations: element(CocoAnnotation, 'annotations', (annotation, index) => {
        countBoxes(1);
        addBox(coco, annotation, index, add);
      }),
    });
  } catch (error) {
    if (!(error instanceof BadJson)) throw error;
    add(error.message);
  }
  return coco;
}

/** The image of an annotation that cannot be read. */
function imageOf({ images }: CocoFile, raw: unknown): string | undefined {
  const named = z.object({ image_id: id }).safeParse(raw);
  return named.success ? images.get(String(named.data.image_id))?.file?.name : undefined;
}

function addBox(coco: CocoFile, annotation: CocoAnnotation, index: number, add: (reason: string, image?: string) => void): void {
  const { image_id, category_id, iscrowd, bbox, segmentation, attributes } = annotation;
  const named = id.safeParse(annotation.id);
  const at = named.success ? named.data : index;
  const image = coco.images.get(String(image_id));
  const problem = (reason: string) =>
    add(named.success ? `annotation ${printable(String(at))}: ${reason}` : `annotations[${index}]: ${reason}`, image?.file?.name);
  const key = String(category_id);
  const [x, y, width, height] = bbox ?? [];
  const rotation = segmentation ? 0 : (attributes?.rotation ?? 0);
  const box = bbox ? boxAroundTurned({ x, y, width, height } as Box, rotation) : segmentation && boxAround(segmentation.flat());
  // Its image was reported before.
  if (image && !image.file) return;
  if (!image) problem(`there is no image ${printable(String(image_id))}`);
  else if (!coco.used.has(key)) problem(`there is no category ${printable(key)}`);
  else if (!box) problem('has neither a bbox nor a polygon');
  else if (box.width < 0 || box.height < 0) problem('the width and the height of a box are not below 0');
  else {
    coco.used.set(key, (coco.used.get(key) as number) + 1);
    if (iscrowd) coco.crowds += 1;
    const around = !bbox || rotation !== 0;
    if (around) coco.polygons += 1;
    const { boxes } = image.annotations;
    // Told once for an image.
    if (boxes.length > boxesPerImageMax) return;
    boxes.push({ label: 0, ...box, around, ...(iscrowd ? { crowd: true } : {}), at });
    image.categories.push(key);
    if (boxes.length > boxesPerImageMax) problem(`the image ${printable(image.fileName)} has more than ${boxesPerImageMax} boxes`);
  }
}

function sortCategories({ categories, used }: CocoFile, add: (reason: string) => void): void {
  const order = (id: number | string) => (typeof id === 'number' ? id : Number.NaN);
  categories.sort((a, b) => order(a.id) - order(b.id) || 0);
  for (const { id } of categories) {
    if (used.has(String(id))) add(`two categories have the id ${printable(String(id))}`);
    used.set(String(id), 0);
  }
}

interface Classes {
  names: string[];
  /** Of each file, the class of each id. */
  labels: Map<CocoFile, Map<string, number>>;
}

/** The categories of all files by name: those of the first file in their order, then what others have more. */
function mergeCategories({ warn, problems }: FormReading, read: CocoFile[]): Classes {
  const unused = unusedSuperCategory(read);
  if (unused !== null)
    warn('SUPERCATEGORY_LEFT_OUT', `The category ${printable(unused)} stands above all others and has no annotations: it is left out.`);
  const indices = new Map<string, number>();
  const labels: Classes['labels'] = new Map();
  for (const coco of read) {
    const own = coco.categories.filter(({ name }) => name !== unused);
    if (new Set(own.map(({ name }) => name)).size < own.length)
      checkClassNames(
        own.map(({ name }) => name),
        problems,
      );
    for (const { name } of own) if (!indices.has(name)) indices.set(name, indices.size);
    labels.set(coco, new Map(own.map(({ id, name }) => [String(id), indices.get(name) as number])));
  }
  const names = [...indices.keys()];
  checkClassNames(names, problems);
  return { names, labels };
}

/** Roboflow writes a category that is the `supercategory` of every other one and of which nothing is. */
function unusedSuperCategory(read: CocoFile[]): string | null {
  const all = read.flatMap(({ categories, used }) =>
    categories.map((category) => ({ ...category, count: used.get(String(category.id)) as number })),
  );
  const above = all.find(
    ({ name, supercategory }) => all.length > read.length && supercategory === 'none' && all.some((other) => other.supercategory === name),
  );
  if (!above) return null;
  const own = all.filter(({ name }) => name === above.name);
  const others = all.filter(({ name }) => name !== above.name);
  return own.every(({ count }) => count === 0) && others.every(({ supercategory }) => supercategory === above.name) ? above.name : null;
}
