import { createHash } from 'node:crypto';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Child } from '../../jobs/childio.ts';
import type { DatasetItem, Spec } from '../../jobs/specs.ts';
import { BadImage, decodeImage } from './image.ts';
import { checkTraining, type Layout, layOut, type PlacedFile, type Split, splits } from './layout.ts';
import { type ContentItem, createContentHash, createOutput, files, type ImportedItem, type Output, type Summary } from './outputs.ts';
import { collectProblems, plural, printable } from './problems.ts';
import { splitBySeed } from './splits.ts';
import { DamagedEntry, openZip, type ZipEntry } from './zip.ts';

export type ImportDatasetSpec = Extract<Spec, { kind: 'IMPORT_DATASET' }>;
export type ImportChild = Child<ImportDatasetSpec>;

interface Extracted extends PlacedFile<ZipEntry> {
  sha256: string;
}
interface Placed extends Extracted {
  split: Split;
}

/**
 * Checks a zip of class folders, and leaves in the work folder what `outputs.ts` lists. Throws DATA_INVALID with the files that
 * cannot be accepted, and then leaves nothing.
 */
export async function importZip(child: ImportChild): Promise<{ items: number; classes: number; contentHash: string }> {
  try {
    const { layout, images } = await extract(child);
    const items = place(child, images, layout.classes);
    const sizeBytes = images.reduce((sum, { file }) => sum + file.sizeBytes, 0);
    const summary: Summary = { ...summarize(items, layout.classes), sizeBytes };
    warnOfDuplicates(child, items);
    await decodeAll(child, items);
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
  const zip = await openZip(spec.file, spec.limits, problems, () => {
    child.advance();
    child.checkStop();
  });
  try {
    problems.check((count) => `The zip has ${plural(count, 'entry', 'entries')} that cannot be accepted.`);
    const layout = layOut(zip.files, zip.folders, problems);
    const ignored = zip.ignored + layout.ignored;
    if (ignored > 0)
      child.warn('FILES_IGNORED', `${plural(ignored, 'file')} beside the images (documents, or an operating system's) were ignored.`);

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

/** Gives each image its split, and sorts them by split and path: an image's place is its n. */
function place({ spec, warn }: ImportChild, images: Extracted[], classes: string[]): Placed[] {
  const { splitSeed, splitShares, limits } = spec;
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

  checkTraining(placed, classes, collectProblems(limits.problemsMax));
  return placed.sort((a, b) => splits.indexOf(a.split) - splits.indexOf(b.split) || (a.path < b.path ? -1 : 1));
}

export function summarize(items: ContentItem[], classes: string[]): Omit<Summary, 'sizeBytes'> {
  const none = (): number[] => classes.map(() => 0);
  const bySplit: Summary['bySplit'] = { train: none(), val: none(), test: none() };
  const hash = createContentHash(classes);
  for (const item of items) {
    (bySplit[item.split][item.label] as number) += 1;
    hash.add(item);
  }
  return {
    contentHash: hash.digest(),
    classes,
    items: items.length,
    bySplit,
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

/** Images that are decoded at the same time take up to 200 MB each (25 megapixels, interlaced). */
export const decodersMax = 8;

/** Decodes each image once, as many at a time as libuv has threads, and writes manifest, items and thumbnails in the order of n. */
async function decodeAll(child: ImportChild, items: Placed[]): Promise<void> {
  const { spec, workDir } = child;
  const problems = collectProblems(spec.limits.problemsMax);
  const [manifest, index, thumbnails] = [files.manifest, files.items, files.thumbnails].map((name) => createOutput(workDir, name)) as [
    Output,
    Output,
    Output,
  ];
  child.phase('decoding', items.length);
  const decode = ({ path }: Placed) => decodeImage(join(workDir, files.extracted, path), spec.limits.imagePixelsMax);
  let n = 0;
  for await (const [item, image] of inOrder(items, Math.min(spec.cpuThreads, decodersMax) * 4, decode)) {
    child.checkStop();
    child.advance();
    if (image instanceof BadImage) {
      problems.add(item.file.name, image.message);
      continue;
    }
    const { split, path, sha256, label } = item;
    const { width, height, thumbnail } = image;
    const line: DatasetItem = { n, split, path, sha256, width, height, label };
    manifest.write(`${JSON.stringify(line)}\n`);
    index.write(
      `${JSON.stringify({ ...line, thumbnailOffset: thumbnails.sizeBytes, thumbnailBytes: thumbnail.length } satisfies ImportedItem)}\n`,
    );
    thumbnails.write(thumbnail);
    n += 1;
  }
  problems.check((count) => `${plural(count, 'file')} cannot be used as ${count === 1 ? 'an image' : 'images'}.`);
  index.end();
  child.artifact('MANIFEST', manifest.end());
  child.artifact('THUMBNAILS', thumbnails.end());
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
