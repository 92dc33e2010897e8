import { createHash } from 'node:crypto';
import { createReadStream, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { jsonLine } from '../../canonical.ts';
import { ChildError } from '../../jobs/childio.ts';
import { type DatasetItem, manifestVersion } from '../../jobs/manifest.ts';
import { inMiB, missingBytes } from '../../storage/disk.ts';
import type { Task } from '../../vision/spec.ts';
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
import { openZip, unpackedBytes, type Zip, type ZipEntry } from './zip.ts';

interface Extracted extends PlacedFile<ZipEntry> {
  /** Of the file in the zip. */
  sha256: string;
}
interface Placed extends Extracted {
  split: Split;
}
type MadeItem = ContentItem & { sizeBytes: number };

/**
 * Checks the zip of a dataset, and leaves in the work folder what `outputs.ts` lists. Throws DATA_INVALID with the files that
 * cannot be accepted, and then leaves nothing.
 */
export async function importZip(child: ImportChild): Promise<{ items: number; classes: number; contentHash: string }> {
  try {
    const { zip, layout, images, leftOut, problems } = await extract(child);
    const { classes } = layout;
    const items = assignSplits(child, images);
    // Otherwise the cause is reported below, after all images.
    if (problems.count === 0) checkTraining(child, items, classes);
    const made = await decodeAll(child, items, leftOut, problems);
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
  }
}

interface Extraction {
  zip: Zip;
  /** As the zip has them, those that are left out too. */
  layout: Layout<ZipEntry>;
  /** Without those that are left out. */
  images: Extracted[];
  leftOut: LeftOut;
  /** Of single images that are not left out. */
  problems: Problems;
}

/**
 * For a zip that was imported before: its manifest says which files are where. How the import reads a zip changes with the versions of
 * Whetstone, and a dataset must not change with it.
 */
export async function extractAgain(child: ImportChild, manifest: string): Promise<{ items: number }> {
  const { spec } = child;
  const paths = new Map<string, string[]>();
  let items = 0;
  for await (const line of createInterface({ input: createReadStream(manifest) })) {
    const { sha256, path } = JSON.parse(line) as DatasetItem;
    paths.set(sha256, [...(paths.get(sha256) ?? []), path]);
    items += 1;
  }
  child.phase('extraction', null);
  const zip = await openChecked(child, collectProblems(spec.limits.problemsMax));
  try {
    const write = imageWriter(child);
    const writeAll = async (file: ZipEntry) => {
      const data = await zip.read(file);
      const sha256 = sha256Of(data);
      const wanted = paths.get(sha256) ?? [];
      // The same bytes may be in the zip twice.
      paths.delete(sha256);
      for (const path of wanted) await write(data, path);
      return wanted.length;
    };
    let written = 0;
    const images = zip.files.filter(({ name }) => !document.test(name));
    for await (const [, count] of inOrder(images, aheadOf(child), writeAll)) {
      child.checkStop();
      child.advance();
      if (!(count instanceof Error)) written += count;
    }
    if (written < items)
      throw new ChildError('DATA_INVALID', `${plural(items - written, 'image')} of the manifest cannot be read from the zip.`);
    return { items };
  } finally {
    zip.close();
  }
}

const sha256Of = (data: Buffer): string => createHash('sha256').update(data).digest('hex');

async function openChecked(child: ImportChild, problems: Problems): Promise<Zip> {
  const { file, limits, nameEncoding } = child.spec;
  const zip = await openZip(file, { ...limits, nameEncoding }, problems, () => {
    child.advance();
    child.checkStop();
  });
  try {
    await checkRoom(child, unpackedBytes(zip.files));
    return zip;
  } catch (error) {
    zip.close();
    throw error;
  }
}

/** A dataset that does not fit would take the room of everything else before its import ends. */
async function checkRoom({ workDir, spec }: ImportChild, bytes: number): Promise<void> {
  const missing = await missingBytes(workDir, spec.limits.diskReserveBytes, bytes);
  if (missing <= 0) return;
  throw new ChildError('DISK_FULL', 'The disk has no room for the images: free some space.', [
    `The images take ${inMiB(bytes)} unpacked: ${inMiB(missing)} more must be free.`,
  ]);
}

/** Writes images under their paths in the folder `extracted`; the writer says whether it converted one. */
function imageWriter({ spec, workDir }: ImportChild): (data: Buffer, path: string) => Promise<boolean> {
  const folders = new Set<string>();
  return async (data, path) => {
    const stored = await storedBytes(data, spec.limits.imagePixelsMax);
    const target = join(workDir, files.extracted, path);
    if (!folders.has(dirname(target))) mkdirSync(dirname(target), { recursive: true });
    folders.add(dirname(target));
    // Never over something that is there already.
    await writeFile(target, stored, { flag: 'wx' });
    return stored !== data;
  };
}

/**
 * Writes the zip's images to the folder `extracted`, under their paths in the dataset, and hashes them. What not every reader decodes
 * alike is written as a PNG of its pixels.
 */
async function extract(child: ImportChild): Promise<Extraction> {
  const { spec } = child;
  const leftOut: LeftOut = new Map();
  const problems = collectProblems(spec.limits.problemsMax, leftOut, spec.onProblem === 'LEAVE_OUT');
  child.phase('extraction', null);
  const zip = await openChecked(child, problems);
  try {
    problems.check((count) => `The zip has ${plural(count, 'entry', 'entries')} that cannot be accepted.`);
    const layout = await layOut(child, zip, problems).catch((error: Error) => {
      // It may follow from the problems before it.
      if (error instanceof ChildError && error.code === 'DATA_INVALID') problems.end();
      throw error;
    });
    warnOfNames(child, zip);

    child.phase('extraction', layout.images.length);
    const writeImage = imageWriter(child);
    const write = async (image: PlacedFile<ZipEntry>) => {
      const data = await zip.read(image.file);
      const converted = await writeImage(data, image.path);
      return { sha256: sha256Of(data), converted, turned: await isTurnedByXmp(data) };
    };
    const images: Extracted[] = [];
    const converted: string[] = [];
    const turned: string[] = [];
    const wanted = layout.images.filter(({ file }) => !leftOut.has(file.name));
    for await (const [image, written] of inOrder(wanted, aheadOf(child), write)) {
      child.checkStop();
      child.advance();
      if (written instanceof Error) problems.add(image.file.name, written.message, image.file.name);
      else {
        images.push({ ...image, sha256: written.sha256 });
        if (written.converted) converted.push(image.file.name);
        if (written.turned) turned.push(image.file.name);
      }
    }
    warnOfConverted(child, converted);
    warnOfXmp(child, turned);
    return { zip, layout, images, leftOut, problems };
  } finally {
    zip.close();
  }
}

const unusable = (count: number): string => `${plural(count, 'file')} cannot be used as ${count === 1 ? 'an image' : 'images'}.`;

/** Images that are read ahead. */
const aheadOf = ({ spec }: ImportChild): number => Math.min(spec.cpuThreads, decodersMax) * 4;

/** Gives each image its split, and sorts them by split and path: an image's place is its n. */
function assignSplits(child: ImportChild, images: Extracted[]): Placed[] {
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
async function decodeAll(child: ImportChild, items: Placed[], leftOut: LeftOut, damaged: Problems): Promise<MadeItem[]> {
  const { spec, workDir } = child;
  const misplaced = collectProblems(spec.limits.problemsMax, leftOut, spec.onProblem === 'LEAVE_OUT');
  const [manifest, index, thumbnails] = [files.manifest, files.items, files.thumbnails].map((name) => createOutputFile(workDir, name)) as [
    OutputFile,
    OutputFile,
    OutputFile,
  ];
  child.phase('decoding', items.length);
  const made: MadeItem[] = [];
  const counts = { clipped: 0, duplicates: 0, withoutArea: 0, empty: 0 };
  for await (const [item, image] of inOrder(items, aheadOf(child), (item) => decode(child, item))) {
    child.checkStop();
    child.advance();
    const { name, sizeBytes } = item.file;
    if (image instanceof Error) {
      damaged.add(name, image.message, name);
      continue;
    }
    const { width, height, thumbnail, checked } = image;
    const { file = '', counted } = item.annotations ?? {};
    // Its file is about other images too.
    const where = counted === 'annotation' || counted === 'shape' ? `the image ${printable(item.path)}: ` : '';
    for (const problem of checked?.problems ?? []) misplaced.add(file, `${where}${problem}`, name);
    if (leftOut.has(name)) continue;
    counts.clipped += checked?.clipped ?? 0;
    counts.duplicates += checked?.duplicates ?? 0;
    counts.withoutArea += checked?.withoutArea ?? 0;
    counts.empty += checked?.boxes.length === 0 ? 1 : 0;
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
  warnOfBoxes(child, counts);
  index.end();
  child.artifact('MANIFEST', manifest.end());
  child.artifact('THUMBNAILS', thumbnails.end());
  return made;
}

async function decode({ spec, workDir }: ImportChild, { path, annotations }: Placed) {
  const image = await openImage(await readFile(join(workDir, files.extracted, path)), spec.limits.imagePixelsMax);
  const checked: CheckedBoxes | null = annotations && checkBoxes(annotations, image);
  return { ...image, checked, thumbnail: await image.thumbnail(checked?.boxes ?? []) };
}
