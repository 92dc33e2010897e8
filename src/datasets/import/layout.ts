/**
 * From the paths in a zip to splits and classes. Read are
 *
 *   <class>/<image>            split by seed
 *   <split>/<class>/<image>    split is train, val or test
 *
 * each also inside further folders that hold everything. Anything else is refused with the files that do not fit: a guess would
 * make wrong labels.
 */
import { ChildError } from '../../jobs/childio.ts';
import type { DatasetItem } from '../../jobs/specs.ts';
import { type Problems, plural, printable } from './problems.ts';

export type Split = DatasetItem['split'];
export const splits: readonly Split[] = ['train', 'val', 'test'];

const splitNames: Record<string, Split> = {
  train: 'train',
  training: 'train',
  val: 'val',
  valid: 'val',
  validation: 'val',
  test: 'test',
  testing: 'test',
};
const splitOf = (name: string): Split | undefined =>
  Object.hasOwn(splitNames, name.toLowerCase()) ? splitNames[name.toLowerCase()] : undefined;

/** What lies beside class folders in many published datasets; inside of them it is refused like any other file that is no image. */
const document = /\.(txt|md|csv|tsv|json|ya?ml|html?|pdf|rst)$|(^|\/)(readme|licen[cs]e|copying|notice)$/i;

const classesMax = 10_000;
const classCharactersMax = 200;

export interface PlacedFile<F> {
  file: F;
  /** In the dataset: `<class>/<image>`, or `<split>/<class>/<image>` with the split's usual name. */
  path: string;
  /** Null: by seed. */
  split: Split | null;
  /** Index into the classes. */
  label: number;
}

export interface Layout<F> {
  images: PlacedFile<F>[];
  /** Sorted. */
  classes: string[];
  /** Documents beside the class folders. */
  ignored: number;
}

/** `folders` are those that the zip names by themselves: an empty class shows only there. */
export function layOut<F extends { name: string }>(files: F[], folders: string[], problems: Problems): Layout<F> {
  const images = files.filter(({ name }) => !document.test(name));
  if (images.length === 0) throw new ChildError('DATA_INVALID', 'There are no images in the zip.');
  const paths = images.map(({ name }) => name.split('/'));
  const outer = outerFolders(paths);
  const inner = paths.map((parts) => parts.slice(outer));
  // The majority tells which form it is, so that the files that do not fit are named, not the ones that do.
  const hasSplits = inner.filter((parts) => parts.length >= 3 && splitOf(parts[0] as string)).length > inner.length / 2;
  const depth = hasSplits ? 3 : 2;

  const placed: Omit<PlacedFile<F>, 'label'>[] = [];
  const classNames = new Set<string>();
  const expected = `expected ${hasSplits ? '<split>/<class>/<image>' : '<class>/<image>, or <split>/<class>/<image> for all'}`;
  for (const [i, file] of images.entries()) {
    const parts = inner[i] as string[];
    const name = parts.at(-2);
    const split = hasSplits ? splitOf(parts[0] as string) : null;
    if (parts.length !== depth || name === undefined || split === undefined) problems.add(file.name, expected);
    else {
      classNames.add(name);
      placed.push({ file, split, path: [...(split ? [split] : []), ...parts.slice(-2)].join('/') });
    }
  }
  checkSplitFolders(hasSplits ? new Set(inner.map((parts) => parts[0] as string)) : new Set(), problems);

  const homes = new Set(placed.map(({ file }) => folderOf(file.name)));
  const documents = files.filter(({ name }) => document.test(name));
  for (const { name } of documents) if (homes.has(folderOf(name))) problems.add(name, 'is not an image');
  problems.check(
    (count) => `${plural(count, 'file does', 'files do')} not lie in a class folder, or ${count === 1 ? 'is' : 'are'} not an image.`,
  );

  for (const folder of folders) {
    const parts = folder.split('/').slice(outer);
    const name = parts.at(-1) as string;
    const isClass = parts.length === depth - 1 && (!hasSplits || splitOf(parts[0] as string));
    if (isClass && !classNames.has(name)) problems.add(folder, 'has no images');
  }
  problems.check((count) => `${plural(count, 'class is', 'classes are')} empty: remove the folder, or add images.`);

  const classes = [...classNames].sort();
  checkClasses(classes, hasSplits, problems);
  const labels = new Map(classes.map((name, label) => [name, label]));
  const labelled = placed.map((p) => ({ ...p, label: labels.get(p.path.split('/').at(-2) as string) as number }));
  return { images: labelled, classes, ignored: documents.length };
}

const folderOf = (name: string): string => name.slice(0, Math.max(0, name.lastIndexOf('/')));

/** How many folders hold everything, without a split or a class being among them. */
function outerFolders(paths: string[][]): number {
  let outer = 0;
  for (;;) {
    const name = paths[0]?.[outer];
    if (name === undefined || splitOf(name) || !paths.every((parts) => parts[outer] === name && parts.length >= outer + 3)) return outer;
    outer += 1;
  }
}

function checkSplitFolders(names: Set<string>, problems: Problems): void {
  for (const split of splits) {
    const same = [...names].filter((name) => splitOf(name) === split);
    if (same.length > 1) problems.add(same.join(', '), `are all folders for the split ${split}: keep one`);
  }
}

function checkClasses(classes: string[], hasSplits: boolean, problems: Problems): void {
  if (!hasSplits && classes.every(splitOf)) {
    throw new ChildError('DATA_INVALID', `The folders ${classes.join(', ')} hold images, but no class folders.`);
  }
  if (classes.length < 2)
    throw new ChildError('DATA_INVALID', `There is only one class, ${printable(classes[0] as string)}: at least two are needed.`);
  if (classes.length > classesMax) {
    throw new ChildError(
      'LIMIT_EXCEEDED',
      `There are ${plural(classes.length, 'class', 'classes')}; ${classesMax.toLocaleString('en-US')} are allowed.`,
    );
  }
  const byLowerCase = new Map<string, string>();
  for (const name of classes) {
    if (name.length > classCharactersMax) problems.add(name, `is longer than ${classCharactersMax} characters`);
    const other = byLowerCase.get(name.toLowerCase());
    if (other) problems.add(name, `differs from ${printable(other)} only in the case of a letter`);
    byLowerCase.set(name.toLowerCase(), name);
  }
  problems.check((count) => `${plural(count, 'class name is', 'class names are')} not acceptable.`);
}

/** Throws DATA_INVALID unless every class has an image to train on. */
export function checkTraining(images: readonly { split: Split; label: number }[], classes: string[], problems: Problems): void {
  const trained = new Set(images.filter(({ split }) => split === 'train').map(({ label }) => label));
  if (trained.size === 0) throw new ChildError('DATA_INVALID', 'There are no images to train on: no folder train.');
  classes.forEach((name, label) => {
    if (!trained.has(label)) problems.add(name, 'has no images in train');
  });
  problems.check((count) => `${plural(count, 'class has', 'classes have')} no images to train on.`);
}
