import { createHash } from 'node:crypto';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { jsonLine } from '../../canonical.ts';
import { ChildError } from '../../jobs/childio.ts';
import { type DatasetItem, manifestVersion } from '../../jobs/specs.ts';
import type { Task } from '../../vision/spec.ts';
import { type CheckedBoxes, checkBoxes } from './boxes.ts';
import { layOut } from './forms.ts';
import { BadImage, openImage } from './image.ts';
import { decodersMax, folderOf, type ImportChild, type Layout, type PlacedFile, type Split, splits } from './layout.ts';
import {
  type ContentItem,
  classesOf,
  createContentHash,
  createOutput,
  files,
  type ImportedItem,
  type Output,
  type Summary,
} from './outputs.ts';
import { collectProblems, plural, printable, someOf } from './problems.ts';
import { splitBySeed } from './splits.ts';
import { DamagedEntry, openZip, type Zip, type ZipEntry } from './zip.ts';

interface Extracted extends PlacedFile<ZipEntry> {
  sha256: string;
}
interface Placed extends Extracted {
  split: Split;
}

/**
 * Checks the zip of a dataset, and leaves in the work folder what `outputs.ts` lists. Throws DATA_INVALID with the files that
 * cannot be accepted, and then leaves nothing.
 */
export async function importZip(child: ImportChild): Promise<{ items: number; classes: number; contentHash: string }> {
  try {
    const { layout, images } = await extract(child);
    const items = place(child, images, layout.classes);
    warnOfDuplicates(child, items);
    const made = await decodeAll(child, items);
    const sizeBytes = images.reduce((sum, { file }) => sum + file.sizeBytes, 0);
    const summary: Summary = { ...summarize(child.spec.task, made, layout.classes), sizeBytes };
    writeFileSync(join(child.workDir, files.summary), JSON.stringify(summary));
    return { items: items.length, classes: layout.classes.length, contentHash: summary.contentHash };
  } catch (error) {
    for (const name of Object.values(files)) rmSync(join(child.workDir, name), { recursive: true, force: true });
    throw error;
  }
}

/** Writes the zip's images to the folder `extracted`, under their paths in the dataset, and hashes them. */
export async function extract(child: ImportChild): Promise<{ layout: Layout<ZipEntry>; images: Extracted[] }> {
  const { spec, workDir } = child;
  const problems = collectProblems(spec.limits.problemsMax);
  child.phase('extraction', null);
  const zip = await openZip(spec.file, { ...spec.limits, nameEncoding: spec.nameEncoding }, problems, () => {
    child.advance();
    child.checkStop();
  });
  try {
    problems.check((count) => `The zip has ${plural(count, 'entry', 'entries')} that cannot be accepted.`);
    const layout = await layOut(child, zip, problems);
    warnOfNames(child, zip);
    warnOfIgnored(child, zip, layout.ignored);

    child.phase('extraction', layout.images.length);
    const folders = new Set<string>();
    const images: Extracted[] = [];
    for (const image of layout.images) {
      child.checkStop();
      const target = join(workDir, files.extracted, image.path);
      if (!folders.has(dirname(target))) mkdirSync(dirname(target), { recursive: true });
      folders.add(dirname(target));
      try {
        const data = await zip.read(image.file);
        // Never over something that is there already.
        writeFileSync(target, data, { flag: 'wx' });
        images.push({ ...image, sha256: createHash('sha256').update(data).digest('hex') });
      } catch (error) {
        if (!(error instanceof DamagedEntry)) throw error;
        problems.add(image.file.name, error.message);
      }
      child.advance();
    }
    problems.check((count) => `${plural(count, 'file')} in the zip cannot be read.`);
    return { layout, images };
  } finally {
    zip.close();
  }
}

/** Folders are what matters most: of class folders their names are the classes. */
function warnOfNames({ warn, spec }: ImportChild, { encoding, unmarked }: Zip): void {
  if (unmarked.length === 0 || spec.nameEncoding !== null) return;
  const folders = [...new Set(unmarked.map(folderOf))].filter((name) => /[^\0-\x7f]/.test(name));
  if (folders.length === 0 && encoding === 'UTF_8') return;
  warn(
    'NAMES_NOT_MARKED',
    `${plural(unmarked.length, 'name')} in the zip ${unmarked.length === 1 ? 'is' : 'are'} not ASCII and not marked as UTF-8. Read as ${encoding}: ` +
      `${someOf(folders.length > 0 ? folders : unmarked)}. If this is wrong, pass \`nameEncoding\`.`,
  );
}

function warnOfIgnored({ warn }: ImportChild, { systemFiles, toolFolders }: Zip, documents: string[]): void {
  if (toolFolders.size > 0) {
    const named = [...toolFolders].map(([folder, count]) => `${folder} (${plural(count, 'file')})`);
    warn(
      'FOLDERS_IGNORED',
      `${plural(named.length, 'hidden folder')} or ${named.length === 1 ? 'folder' : 'folders'} of tools left out: ${someOf(named)}.`,
    );
  }
  const ignored = [...documents, ...systemFiles];
  if (ignored.length > 0)
    warn(
      'FILES_IGNORED',
      `${plural(ignored.length, 'file')} that ${ignored.length === 1 ? 'is no image was' : 'are no images were'} ignored: ${someOf(ignored)}.`,
    );
}

/** Gives each image its split, and sorts them by split and path: an image's place is its n. */
function place(child: ImportChild, images: Extracted[], classes: string[]): Placed[] {
  const { warn } = child;
  const { splitSeed, splitShares } = child.spec;
  const named = images.map(({ split }) => split);
  const bySeed = named.every((split) => split === null);
  const noVal = !bySeed && !named.includes('val') && splitShares.val > 0;
  if (noVal)
    warn(
      'VAL_FROM_TRAIN',
      `There is no folder val: ${splitShares.val * 100} % of each class of train were taken, by the seed ${splitSeed}.`,
    );

  const divided = bySeed ? images : noVal ? images.filter(({ split }) => split === 'train') : [];
  const chosen = splitBySeed(divided, splitSeed, bySeed ? splitShares : { val: splitShares.val, test: 0 });
  const splitOf = new Map(divided.map((image, i) => [image, chosen[i] as Split]));
  const placed = images.map((image) => ({ ...image, split: splitOf.get(image) ?? (image.split as Split) }));

  checkTraining(child, placed, classes);
  return placed.sort((a, b) => splits.indexOf(a.split) - splits.indexOf(b.split) || (a.path < b.path ? -1 : 1));
}

/** Every class needs an image of its own to learn from; of a detection dataset, where a class may be rare, any box will do. */
function checkTraining({ spec, warn }: ImportChild, images: Placed[], classes: string[]): void {
  const problems = collectProblems(spec.limits.problemsMax);
  const train = images.filter(({ split }) => split === 'train');
  if (train.length === 0) throw new ChildError('DATA_INVALID', 'There are no images to train on: no folder train.');
  const trained = new Set(
    train.flatMap(({ label, annotations }) => classesOf({ label, boxes: annotations?.boxes.filter((box) => !box.crowd) ?? null })),
  );
  const missing = classes.filter((_, label) => !trained.has(label));
  if (spec.task === 'CLASSIFICATION') {
    for (const name of missing) problems.add(name, 'has no images in train');
    problems.check((count) => `${plural(count, 'class has', 'classes have')} no images to train on.`);
  } else if (trained.size === 0) throw new ChildError('DATA_INVALID', 'There are no boxes to train on: no image of train has one.');
  else if (missing.length > 0)
    warn('CLASSES_WITHOUT_BOXES', `${plural(missing.length, 'class has', 'classes have')} no boxes to train on: ${someOf(missing)}.`);
}

export function summarize(task: Task, items: readonly ContentItem[], classes: string[]): Omit<Summary, 'sizeBytes'> {
  const byClass = (): Summary['bySplit'] => ({ train: classes.map(() => 0), val: classes.map(() => 0), test: classes.map(() => 0) });
  const images = { train: 0, val: 0, test: 0 };
  const [bySplit, boxesBySplit] = [byClass(), byClass()];
  const hash = createContentHash(task, classes);
  for (const item of items) {
    images[item.split] += 1;
    for (const label of classesOf(item)) (bySplit[item.split][label] as number) += 1;
    for (const { label, crowd } of item.boxes ?? []) (boxesBySplit[item.split][label] as number) += crowd ? 0 : 1;
    hash.add(item);
  }
  return {
    contentHash: hash.digest(),
    classes,
    items: items.length,
    images,
    bySplit,
    boxesBySplit: task === 'DETECTION' ? boxesBySplit : null,
    duplicatesAcrossSplits: [...duplicates(items)].length,
  };
}

/** The first two items of each content that stands in more than one split. */
function* duplicates<T extends { split: Split; sha256: string }>(items: Iterable<T>): Generator<[T, T]> {
  const first = new Map<string, T>();
  const told = new Set<string>();
  for (const item of items) {
    const other = first.get(item.sha256);
    if (!other) first.set(item.sha256, item);
    else if (other.split !== item.split && !told.has(item.sha256)) {
      told.add(item.sha256);
      yield [other, item];
    }
  }
}

const duplicatesNamed = 5;

function warnOfDuplicates({ warn }: ImportChild, items: Placed[]): void {
  const pairs = [...duplicates(items)];
  if (pairs.length === 0) return;
  const named = pairs.slice(0, duplicatesNamed).map(([a, b]) => `${printable(a.path)} (${a.split}) = ${printable(b.path)} (${b.split})`);
  const more = pairs.length > named.length ? ', …' : '';
  warn(
    'DUPLICATES_ACROSS_SPLITS',
    `${plural(pairs.length, 'image is', 'images are')} in more than one split, which flatters the metrics: ${named.join(', ')}${more}.`,
  );
}

/**
 * Decodes each image once, as many at a time as libuv has threads, checks its boxes, and writes manifest, items and thumbnails in the
 * order of n; returns the items.
 */
async function decodeAll(child: ImportChild, items: Placed[]): Promise<ContentItem[]> {
  const { spec, workDir } = child;
  const damaged = collectProblems(spec.limits.problemsMax);
  const misplaced = collectProblems(spec.limits.problemsMax);
  const [manifest, index, thumbnails] = [files.manifest, files.items, files.thumbnails].map((name) => createOutput(workDir, name)) as [
    Output,
    Output,
    Output,
  ];
  child.phase('decoding', items.length);
  const made: ContentItem[] = [];
  const counts = { clipped: 0, duplicates: 0, empty: 0 };
  for await (const [item, image] of inOrder(items, Math.min(spec.cpuThreads, decodersMax) * 4, (item) => decode(child, item))) {
    child.checkStop();
    child.advance();
    if (image instanceof BadImage) {
      damaged.add(item.file.name, image.message);
      continue;
    }
    const { width, height, thumbnail, checked } = image;
    const { file = '', place } = item.annotations ?? {};
    const where = place === 'annotation' ? `the image ${printable(item.path)}: ` : '';
    for (const problem of checked?.problems ?? []) misplaced.add(file, `${where}${problem}`);
    counts.clipped += checked?.clipped ?? 0;
    counts.duplicates += checked?.duplicates ?? 0;
    counts.empty += checked?.boxes.length === 0 ? 1 : 0;
    const { split, path, sha256, label } = item;
    const line = { n: made.length, split, path, sha256, width, height, label, boxes: checked?.boxes ?? null };
    manifest.write(jsonLine({ v: manifestVersion, ...line } satisfies DatasetItem));
    index.write(jsonLine({ ...line, thumbnailOffset: thumbnails.sizeBytes, thumbnailBytes: thumbnail.length } satisfies ImportedItem));
    thumbnails.write(thumbnail);
    made.push(line);
  }
  damaged.check((count) => `${plural(count, 'file')} cannot be used as ${count === 1 ? 'an image' : 'images'}.`);
  misplaced.check((count) => `${plural(count, 'box', 'boxes')} or ${count === 1 ? 'size does' : 'sizes do'} not fit the images.`);
  warnOfBoxes(child, counts);
  index.end();
  child.artifact('MANIFEST', manifest.end());
  child.artifact('THUMBNAILS', thumbnails.end());
  return made;
}

async function decode({ spec, workDir }: ImportChild, { path, annotations }: Placed) {
  const image = await openImage(join(workDir, files.extracted, path), spec.limits.imagePixelsMax);
  const checked: CheckedBoxes | null = annotations && checkBoxes(annotations, image);
  return { ...image, checked, thumbnail: await image.thumbnail(checked?.boxes ?? []) };
}

function warnOfBoxes({ warn }: ImportChild, { clipped, duplicates, empty }: Record<'clipped' | 'duplicates' | 'empty', number>): void {
  if (clipped > 0)
    warn(
      'BOXES_CLIPPED',
      `${plural(clipped, 'box', 'boxes')} reached up to a pixel out of ${clipped === 1 ? 'its image' : 'their images'} and ${clipped === 1 ? 'was' : 'were'} cut off there.`,
    );
  if (duplicates > 0)
    warn(
      'BOXES_TWICE',
      `${plural(duplicates, 'box', 'boxes')} stood in an image before, with the same class and place, and ${duplicates === 1 ? 'was' : 'were'} left out.`,
    );
  if (empty > 0)
    warn(
      'IMAGES_WITHOUT_BOXES',
      `${plural(empty, 'image')} without boxes: ${empty === 1 ? 'it is' : 'they are'} learned as showing nothing.`,
    );
}

/**
 * What `work` makes of each item, in the order of the items, with at most `ahead` under way; a BadImage is a result. Nothing is under
 * way any more when it ends, however it ends.
 */
async function* inOrder<T, R>(items: Iterable<T>, ahead: number, work: (item: T) => Promise<R>): AsyncGenerator<[T, R | BadImage]> {
  const queue: { item: T; outcome: Promise<{ value: R | BadImage } | { error: unknown }> }[] = [];
  const take = async (): Promise<[T, R | BadImage]> => {
    const { item, outcome } = queue.shift() as (typeof queue)[number];
    const settled = await outcome;
    if ('error' in settled) throw settled.error;
    return [item, settled.value];
  };
  try {
    for (const item of items) {
      const outcome = work(item).then(
        (value) => ({ value }),
        (error: unknown) => (error instanceof BadImage ? { value: error } : { error }),
      );
      queue.push({ item, outcome });
      if (queue.length >= ahead) yield await take();
    }
    while (queue.length > 0) yield await take();
  } finally {
    await Promise.all(queue.map(({ outcome }) => outcome));
  }
}
