/**
 * From the paths in a zip to splits and classes. Read are
 *
 *   <class>/<image>            split by seed
 *   <split>/<class>/<image>    split is train, val or test
 *
 * each also inside further folders that hold everything. Images elsewhere are refused, or left out: a guess would make wrong labels.
 */
import { ChildError } from '../../jobs/childio.ts';
import { archive, checkClassNames, document, type Layout, type PlacedFile, splitOf, splits } from './layout.ts';
import { type Problems, plural, printable } from './problems.ts';
import { unreadForm } from './unread.ts';

/** `folders` are those that the zip names by themselves: an empty class shows only there. */
export function layOutClassFolders<F extends { name: string }>(files: F[], folders: string[], problems: Problems): Layout<F> {
  const images = files.filter(({ name }) => !document.test(name));
  if (images.length === 0) throw new ChildError('DATA_INVALID', 'There are no images in the zip.');
  const paths = images.map(({ name }) => name.split('/'));
  const outer = outerFolders(paths);
  const isInside = (parts: string[]) => outer.every((folder, i) => parts[i] === folder);
  const inner = paths.flatMap((parts) => (isInside(parts) ? [parts.slice(outer.length)] : []));
  // The majority tells which form it is, so that the files that do not fit are named, not the ones that do.
  const hasSplits = inner.filter((parts) => parts.length >= 3 && splitOf(parts[0] as string)).length > inner.length / 2;
  const depth = hasSplits ? 3 : 2;

  const placed: Omit<PlacedFile<F>, 'label' | 'annotations'>[] = [];
  const classNames = new Set<string>();
  const misplaced: string[] = [];
  const expected = `expected ${hasSplits ? '<split>/<class>/<image>' : '<class>/<image>, or <split>/<class>/<image> for all'}`;
  for (const [i, file] of images.entries()) {
    const parts = (paths[i] as string[]).slice(outer.length);
    const name = parts.at(-2);
    const split = hasSplits ? splitOf(parts[0] as string) : null;
    if (!isInside(paths[i] as string[]) || parts.length !== depth || name === undefined || split === undefined) {
      misplaced.push(file.name);
    } else {
      classNames.add(name);
      placed.push({ file, split, path: [...(split ? [split] : []), ...parts.slice(-2)].join('/') });
    }
  }
  const classes = [...classNames].sort();
  if (classes.length > 0) checkForm(classes, hasSplits, files);
  for (const name of misplaced)
    problems.add(name, archive.test(name) ? 'is an archive: unpack it before you make the zip' : expected, name);
  if (classes.length === 0 && problems.count === 0) {
    throw new ChildError('DATA_INVALID', `There are no class folders: ${expected}.${otherFormHint(files)}`);
  }
  problems.check((count) => `${plural(count, 'file does', 'files do')} not lie in a class folder.`);
  checkSplitFolders(hasSplits ? new Set(inner.map((parts) => parts[0] as string)) : new Set(), problems);

  for (const folder of folders) {
    if (!isInside(folder.split('/'))) continue;
    const parts = folder.split('/').slice(outer.length);
    const name = parts.at(-1) as string;
    const isClass = parts.length === depth - 1 && (!hasSplits || splitOf(parts[0] as string));
    if (isClass && !classNames.has(name)) problems.add(folder, 'has no images');
  }
  problems.check((count) => `${plural(count, 'class is', 'classes are')} empty: remove the folder, or add images.`);

  checkClassNames(classes, problems);
  const labels = new Map(classes.map((name, label) => [name, label]));
  const labelled = placed.map((p) => ({ ...p, label: labels.get(p.path.split('/').at(-2) as string) as number, annotations: null }));
  return { images: labelled, classes, ignored: files.flatMap(({ name }) => (document.test(name) ? [name] : [])) };
}

/** The folders that hold most images, without a split or a class being among them. */
function outerFolders(paths: string[][]): string[] {
  const outer: string[] = [];
  for (let inside = paths; ; ) {
    const counts = new Map<string, number>();
    for (const parts of inside) {
      const name = parts[outer.length] as string;
      if (parts.length >= outer.length + 3) counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    const [name] = [...counts].find(([, count]) => count > paths.length / 2) ?? [];
    if (name === undefined || splitOf(name)) return outer;
    inside = inside.filter((parts) => parts[outer.length] === name);
    outer.push(name);
  }
}

function checkSplitFolders(names: Set<string>, problems: Problems): void {
  for (const split of splits) {
    const same = [...names].filter((name) => splitOf(name) === split);
    if (same.length > 1) problems.add(same.join(', '), `are all folders for the split ${split}: keep one`);
  }
}

/** Refuses what is no dataset in class folders, before single files are named for not lying in one. */
function checkForm(classes: string[], hasSplits: boolean, files: readonly { name: string }[]): void {
  const hint = otherFormHint(files);
  if (!hasSplits && classes.every(splitOf)) {
    throw new ChildError('DATA_INVALID', `The folders ${classes.join(', ')} hold images, but no class folders.${hint}`);
  }
  if (classes.length < 2)
    throw new ChildError('DATA_INVALID', `There is only one class, ${printable(classes[0] as string)}: at least two are needed.${hint}`);
}

/** What another form of dataset the files belong to, as a sentence. */
function otherFormHint(files: readonly { name: string }[]): string {
  const sign =
    /(^|\/)(data\.ya?ml|obj\.(names|data)|_darknet\.labels|classes\.txt|instances[^/]*\.json|_annotations\.coco\.json|annotations\.xml|(labels|annotations)\/.*\.(txt|xml|json))$/i;
  const found = files.find(({ name }) => sign.test(name));
  if (found)
    return ` ${printable(found.name)} belongs to a detection dataset: upload the zip again and import it with \`task: DETECTION\`.`;
  const unread = unreadForm(files);
  return unread ? ` ${unread}` : '';
}
