import { createHash } from 'node:crypto';
import { createReadStream, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { crc32 } from 'node:zlib';
import { jsonLine } from '../../canonical.ts';
import { ChildError } from '../../jobs/childio.ts';
import { type DatasetItem, manifestVersion } from '../../jobs/manifest.ts';
import type { Task } from '../../vision/spec.ts';
import { createImageTable } from '../imageTable.ts';
import { type CheckedBoxes, checkBoxes } from './boxes.ts';
import { layOut } from './forms.ts';
import { isTurnedByXmp, openImage, storedBytes } from './image.ts';
import { inOrder } from './inOrder.ts';
import { decodersMax, document, type ImportChild, type Layout, type PlacedFile, type Split, splits } from './layout.ts';
import { sidecar } from './names.ts';
import {
  type ContentItem,
  classesOf,
  createContentHash,
  createOutputFile,
  type DatasetSummary,
  duplicatesAcrossSplits,
  files,
  type ImportedItem,
  type OutputFile,
  type WrittenFile,
} from './outputs.ts';
import { collectProblems, type LeftOut, type Problems, plural, printable, someOf } from './problems.ts';
import { splitBySeed } from './splits.ts';
import {
  warnOfBoxes,
  warnOfConverted,
  warnOfDuplicates,
  warnOfIgnored,
  warnOfLabels,
  warnOfLeftOut,
  warnOfNames,
  warnOfXmp,
} from './warnings.ts';
import { openZip, type Zip, type ZipEntry } from './zip.ts';

interface Hashed extends PlacedFile<ZipEntry> {
  /** Of the file in the zip. */
  sha256: string;
}
interface Placed extends Hashed {
  split: Split;
}
type MadeItem = ContentItem & { sizeBytes: number };

/**
 * Checks the zip of a dataset, and leaves in the work folder what `outputs.ts` lists. Throws DATA_INVALID with the files that
 * cannot be accepted, and then leaves nothing.
 */
export async function importZip(child: ImportChild): Promise<{ items: number; classes: number; contentHash: string }> {
  const leftOut: LeftOut = new Map();
  const problems = collectProblems(child.spec.limits.problemsMax, leftOut, child.spec.onProblem === 'LEAVE_OUT');
  let zip: Zip | undefined;
  try {
    child.phase('extraction', null);
    zip = await open(child, problems);
    const { layout, images } = await readAll(child, zip, leftOut, problems);
    const { classes } = layout;
    const items = assignSplits(child, images);
    // Otherwise the cause is reported below, after all images.
    if (problems.count === 0) checkTraining(child, items, classes);
    const made = await decodeAll(child, zip, items, leftOut, problems);
    const sidecars = [...leftOut.keys()].filter((name) => sidecar.test(name));
    const leftOutImages = new Map([...leftOut].filter(([name]) => !sidecar.test(name)));
    if (leftOut.size > 0) {
      const read = layout.images.map(({ file }) => file.name).filter((name) => !leftOut.has(name));
      checkLeftOut(child, leftOutImages, read.length + leftOutImages.size);
      const kept = items.filter(({ file }) => !leftOut.has(file.name));
      checkTraining(child, kept, classes);
    }
    warnOfIgnored(child, zip, [...layout.ignored, ...sidecars]);
    warnOfClasses(child, made, classes);
    warnOfDuplicates(child, made);
    if (child.spec.task === 'CLASSIFICATION') warnOfLabels(child, made, classes);
    warnOfLeftOut(child, leftOutImages);
    const sizeBytes = made.reduce((sum, item) => sum + item.sizeBytes, 0);
    const summary: DatasetSummary = { ...summarizeDataset(child.spec.task, made, classes, leftOut), sizeBytes };
    writeFileSync(join(child.workDir, files.summary), JSON.stringify(summary));
    return { items: made.length, classes: classes.length, contentHash: summary.contentHash };
  } catch (error) {
    for (const name of Object.values(files)) rmSync(join(child.workDir, name), { recursive: true, force: true });
    throw error;
  } finally {
    zip?.close();
  }
}

interface Found {
  /** As the zip has them, those that are left out too. */
  layout: Layout<ZipEntry>;
  /** Without those that are left out. */
  images: Hashed[];
}

/**
 * For a zip that was imported before: its manifest says which files are its images. How the import reads a zip changes with the versions of
 * Whetstone, and a dataset must not change with it.
 */
export async function indexAgain(child: ImportChild, manifest: string): Promise<{ items: number }> {
  const { spec } = child;
  const numbers = new Map<string, number[]>();
  let items = 0;
  for await (const line of createInterface({ input: createReadStream(manifest) })) {
    const { sha256, n } = JSON.parse(line) as DatasetItem;
    numbers.set(sha256, [...(numbers.get(sha256) ?? []), n]);
    items += 1;
  }
  child.phase('extraction', null);
  const zip = await open(child, collectProblems(spec.limits.problemsMax));
  try {
    const output = createImages(child, zip, items);
    const read = async (file: ZipEntry) => {
      const data = await zip.read(file);
      const sha256 = sha256Of(data);
      const wanted = numbers.get(sha256) ?? [];
      // The same bytes may be in the zip twice.
      numbers.delete(sha256);
      return { wanted, stored: wanted.length > 0 ? await storedBytes(data, spec.limits.imagePixelsMax) : data, data };
    };
    let found = 0;
    const images = zip.files.filter(({ name }) => !document.test(name));
    for await (const [file, result] of inOrder(images, aheadOf(child), read)) {
      child.checkStop();
      child.advance();
      if (result instanceof Error) continue;
      for (const n of result.wanted) await output.add(n, file, result.data === result.stored ? null : result.stored);
      found += result.wanted.length;
    }
    if (found < items)
      throw new ChildError('DATA_INVALID', `${plural(items - found, 'image')} of the manifest cannot be read from the zip.`);
    output.end(items);
    return { items };
  } finally {
    zip.close();
  }
}

const sha256Of = (data: Buffer): string => createHash('sha256').update(data).digest('hex');

const open = ({ spec, advance, checkStop }: ImportChild, problems: Problems): Promise<Zip> =>
  openZip(spec.file, { ...spec.limits, nameEncoding: spec.nameEncoding }, problems, () => {
    advance();
    checkStop();
  });

/** The file that says where each image is, as it grows. */
function createImages({ workDir }: ImportChild, zip: Zip, countMax: number) {
  const output = createOutputFile(workDir, files.images);
  const table = createImageTable(countMax);
  return {
    /** Image `n` is this file of the zip, or the PNG into which it was converted. */
    async add(n: number, file: ZipEntry, converted: Buffer | null): Promise<void> {
      if (!converted) return table.set(n, await zip.locate(file));
      const sizeBytes = converted.length;
      table.set(n, { offset: output.sizeBytes, storedBytes: sizeBytes, sizeBytes, crc32: crc32(converted), where: 'HERE' });
      output.write(converted);
    },
    end(count: number): WrittenFile {
      output.write(table.end(count));
      return output.end();
    },
  };
}

/** Reads and hashes the zip's images once, so that what is damaged is known before anything else is looked at. */
async function readAll(child: ImportChild, zip: Zip, leftOut: LeftOut, problems: Problems): Promise<Found> {
  problems.check((count) => `The zip has ${plural(count, 'entry', 'entries')} that cannot be accepted.`);
  const layout = await layOut(child, zip, problems).catch((error: Error) => {
    // It may follow from the problems before it.
    if (error instanceof ChildError && error.code === 'DATA_INVALID') problems.end();
    throw error;
  });
  warnOfNames(child, zip);

  child.phase('extraction', layout.images.length);
  const read = async (image: PlacedFile<ZipEntry>) => {
    const data = await zip.read(image.file);
    return { sha256: sha256Of(data), turned: await isTurnedByXmp(data) };
  };
  const images: Hashed[] = [];
  const turned: string[] = [];
  const wanted = layout.images.filter(({ file }) => !leftOut.has(file.name));
  for await (const [image, found] of inOrder(wanted, aheadOf(child), read)) {
    child.checkStop();
    child.advance();
    if (found instanceof Error) problems.add(image.file.name, found.message, image.file.name);
    else {
      images.push({ ...image, sha256: found.sha256 });
      if (found.turned) turned.push(image.file.name);
    }
  }
  warnOfXmp(child, turned);
  return { layout, images };
}

const unusable = (count: number): string => `${plural(count, 'file')} cannot be used as ${count === 1 ? 'an image' : 'images'}.`;

/** Images that are read ahead. */
const aheadOf = ({ spec }: ImportChild): number => Math.min(spec.cpuThreads, decodersMax) * 4;

/** Gives each image its split, and sorts them by split and path: an image's place is its n. */
function assignSplits(child: ImportChild, images: Hashed[]): Placed[] {
  const { warn } = child;
  const { splitSeed, splitShares } = child.spec;
  const named = images.map(({ split }) => split);
  const bySeed = named.every((split) => split === null);
  const noVal = !bySeed && !named.includes('val') && splitShares.val > 0;
  if (noVal)
    warn(
      'VAL_FROM_TRAIN',
      `There is no split val: ${Number((100 * splitShares.val).toFixed(2))} % of each class of train were taken, by the seed ${splitSeed}.`,
    );

  const divided = bySeed ? images : noVal ? images.filter(({ split }) => split === 'train') : [];
  const chosen = splitBySeed(divided, splitSeed, bySeed ? splitShares : { val: splitShares.val, test: 0 });
  const splitOf = new Map(divided.map((image, i) => [image, chosen[i] as Split]));
  const placed = images.map((image) => ({ ...image, split: splitOf.get(image) ?? (image.split as Split) }));
  return placed.sort((a, b) => splits.indexOf(a.split) - splits.indexOf(b.split) || (a.path < b.path ? -1 : 1));
}

const trainedClasses = (images: readonly Pick<ContentItem, 'split' | 'label' | 'boxes'>[]): Set<number> =>
  new Set(
    images
      .filter(({ split }) => split === 'train')
      .flatMap(({ label, boxes }) => classesOf({ label, boxes: boxes?.filter((box) => !box.crowd) ?? null })),
  );

/** Every class needs an image of its own to learn from; of a detection dataset, where a class may be rare, any box will do. */
function checkTraining({ spec }: ImportChild, images: readonly Placed[], classes: string[]): void {
  if (!images.some(({ split }) => split === 'train')) {
    const named = [...new Set(images.map(({ split }) => split))].join(' and ');
    throw new ChildError(
      'DATA_INVALID',
      `There are no images to train on: all are in ${named}. Add a split train, or name no splits: then the seed divides the images.`,
    );
  }
  const problems = collectProblems(spec.limits.problemsMax);
  const trained = trainedClasses(images.map(({ split, label, annotations }) => ({ split, label, boxes: annotations?.boxes ?? null })));
  if (spec.task === 'CLASSIFICATION') {
    for (const [label, name] of classes.entries()) if (!trained.has(label)) problems.add(name, 'has no images in train');
    problems.check((count) => `${plural(count, 'class has', 'classes have')} no images to train on.`);
  } else if (trained.size === 0) throw new ChildError('DATA_INVALID', 'There are no boxes to train on: no image of train has one.');
}

function warnOfClasses({ spec, warn }: ImportChild, items: readonly ContentItem[], classes: string[]): void {
  const trained = trainedClasses(items);
  const missing = classes.filter((_, label) => !trained.has(label));
  if (spec.task === 'DETECTION' && missing.length > 0)
    warn('CLASSES_WITHOUT_BOXES', `${plural(missing.length, 'class has', 'classes have')} no boxes to train on: ${someOf(missing)}.`);
}

function checkLeftOut({ spec }: ImportChild, leftOut: LeftOut, images: number): void {
  if (leftOut.size <= spec.leftOutShareMax * images) return;
  const [percent, allowed] = [(100 * leftOut.size) / images, 100 * spec.leftOutShareMax].map((n) => Number(n.toFixed(2)));
  throw new ChildError(
    'DATA_INVALID',
    `${leftOut.size} of ${plural(images, 'image')} (${percent} %) would be left out; leftOutShareMax allows ${allowed} %.`,
    [...leftOut].slice(0, spec.limits.problemsMax).map(([name, reason]) => `${printable(name)}: ${reason}`),
  );
}

export function summarizeDataset(
  task: Task,
  items: readonly ContentItem[],
  classes: string[],
  left: LeftOut = new Map(),
): Omit<DatasetSummary, 'sizeBytes'> {
  const byClass = (): DatasetSummary['bySplit'] => ({ train: classes.map(() => 0), val: classes.map(() => 0), test: classes.map(() => 0) });
  const images = { train: 0, val: 0, test: 0 };
  const [bySplit, boxesBySplit] = [byClass(), byClass()];
  const hash = createContentHash(task, classes);
  for (const item of items) {
    images[item.split] += 1;
    for (const label of classesOf(item)) (bySplit[item.split][label] as number) += 1;
    for (const { label, crowd } of item.boxes ?? []) (boxesBySplit[item.split][label] as number) += crowd ? 0 : 1;
    hash.add(item);
  }
  const leftOut = [...left].map(([file, reason]) => ({ file, reason })).sort((a, b) => (a.file < b.file ? -1 : 1));
  return {
    contentHash: hash.digest(leftOut),
    classes,
    items: items.length,
    images,
    bySplit,
    boxesBySplit: task === 'DETECTION' ? boxesBySplit : null,
    duplicatesAcrossSplits: [...duplicatesAcrossSplits(items)].length,
    leftOut,
  };
}

/**
 * Decodes each image once, as many at a time as libuv has threads, checks its boxes, and writes manifest, items and thumbnails in the
 * order of n; returns the items.
 */
async function decodeAll(child: ImportChild, zip: Zip, items: Placed[], leftOut: LeftOut, damaged: Problems): Promise<MadeItem[]> {
  const { spec, workDir } = child;
  const misplaced = collectProblems(spec.limits.problemsMax, leftOut, spec.onProblem === 'LEAVE_OUT');
  const [manifest, index, thumbnails] = [files.manifest, files.items, files.thumbnails].map((name) => createOutputFile(workDir, name)) as [
    OutputFile,
    OutputFile,
    OutputFile,
  ];
  const images = createImages(child, zip, items.length);
  const convertedNames: string[] = [];
  child.phase('decoding', items.length);
  const made: MadeItem[] = [];
  const counts = { clipped: 0, duplicates: 0, withoutArea: 0, empty: 0 };
  for await (const [item, image] of inOrder(items, aheadOf(child), (item) => decode(child, zip, item))) {
    child.checkStop();
    child.advance();
    const { name, sizeBytes } = item.file;
    if (image instanceof Error) {
      damaged.add(name, image.message, name);
      continue;
    }
    const { width, height, thumbnail, checked, converted } = image;
    const { file = '', counted } = item.annotations ?? {};
    // Its file is about other images too.
    const where = counted === 'annotation' || counted === 'shape' ? `the image ${printable(item.path)}: ` : '';
    for (const problem of checked?.problems ?? []) misplaced.add(file, `${where}${problem}`, name);
    if (leftOut.has(name)) continue;
    counts.clipped += checked?.clipped ?? 0;
    counts.duplicates += checked?.duplicates ?? 0;
    counts.withoutArea += checked?.withoutArea ?? 0;
    counts.empty += checked?.boxes.length === 0 ? 1 : 0;
    if (converted) convertedNames.push(name);
    await images.add(made.length, item.file, converted);
    const { split, path, sha256, label } = item;
    const line = { n: made.length, split, path, sha256, width, height, label, boxes: checked?.boxes ?? null };
    manifest.write(jsonLine({ v: manifestVersion, ...line } satisfies DatasetItem));
    index.write(jsonLine({ ...line, thumbnailOffset: thumbnails.sizeBytes, thumbnailBytes: thumbnail.length } satisfies ImportedItem));
    thumbnails.write(thumbnail);
    made.push({ ...line, sizeBytes });
  }
  damaged.check(unusable);
  damaged.append(misplaced, (count) => `${plural(count, 'box', 'boxes')} or ${count === 1 ? 'size does' : 'sizes do'} not fit the images.`);
  damaged.end();
  warnOfConverted(child, convertedNames);
  warnOfBoxes(child, counts);
  index.end();
  child.artifact('MANIFEST', manifest.end());
  child.artifact('THUMBNAILS', thumbnails.end());
  child.artifact('IMAGES', images.end(made.length));
  return made;
}

async function decode({ spec }: ImportChild, zip: Zip, { file, annotations }: Placed) {
  const data = await zip.read(file);
  const stored = await storedBytes(data, spec.limits.imagePixelsMax);
  const image = await openImage(stored, spec.limits.imagePixelsMax);
  const checked: CheckedBoxes | null = annotations && checkBoxes(annotations, image);
  return { ...image, converted: stored === data ? null : stored, checked, thumbnail: await image.thumbnail(checked?.boxes ?? []) };
}
