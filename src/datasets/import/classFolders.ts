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
import { checkClassNames, document, folderOf, type Layout, type PlacedFile, splitOf, splits } from './layout.ts';
import { type Problems, plural, printable } from './problems.ts';

/** `folders` are those that the zip names by themselves: an empty class shows only there. */
export function layOutClassFolders<F extends { name: string }>(files: F[], folders: string[], problems: Problems): Layout<F> {
  const images = files.filter(({ name }) => !document.test(name));
  if (images.length === 0) throw new ChildError('DATA_INVALID', 'There are no images in the zip.');
  const paths = images.map(({ name }) => name.split('/'));
  const outer = outerFolders(paths);
  const inner = paths.map((parts) => parts.slice(outer));
  // The majority tells which form it is, so that the files that do not fit are named, not the ones that do.
  const hasSplits = inner.filter((parts) => parts.length >= 3 && splitOf(parts[0] as string)).length > inner.length / 2;
  const depth = hasSplits ? 3 : 2;

  const placed: Omit<PlacedFile<F>, 'label' | 'annotations'>[] = [];
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
  const labelled = placed.map((p) => ({ ...p, label: labels.get(p.path.split('/').at(-2) as string) as number, annotations: null }));
  return { images: labelled, classes, ignored: documents.map(({ name }) => name) };
}

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
  checkClassNames(classes, problems);
}
