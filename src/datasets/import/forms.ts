import { ChildError } from '../../jobs/childio.ts';
import { layOutClassFolders } from './classFolders.ts';
import { layOutCoco } from './coco.ts';
import { folderOf, type ImportChild, type Layout } from './layout.ts';
import { nameProblem } from './names.ts';
import { type Problems, plural, printable, someOf } from './problems.ts';
import { createBoxCounter } from './read.ts';
import { layOutYolo } from './yolo.ts';
import type { Zip, ZipEntry } from './zip.ts';

/** Reads what a zip holds in the form that it has: a task's forms are told by the files that only one of them has. */
export async function layOut(child: ImportChild, zip: Zip, problems: Problems): Promise<Layout<ZipEntry>> {
  if (child.spec.task === 'CLASSIFICATION') return layOutClassFolders(zip.files, zip.folders, problems);
  const layout = await layOutDetection(child, zip, problems);
  checkPaths(layout, problems);
  return layout;
}

async function layOutDetection({ spec, warn }: ImportChild, zip: Zip, problems: Problems): Promise<Layout<ZipEntry>> {
  const count = createBoxCounter(spec.limits.boxesMax);
  const named = (ending: RegExp) => zip.files.find(({ name }) => ending.test(name))?.name;
  const yaml = named(/\.ya?ml$/i);
  const json = named(/\.json$/i);
  if (yaml && json) {
    throw new ChildError(
      'DATA_INVALID',
      `The zip has ${printable(yaml)} (the form YOLO) and ${printable(json)} (the form COCO): remove the one that is not meant.`,
    );
  }
  if (yaml) return layOutYolo(zip, count, problems);
  if (json) {
    const { crowds, unlisted, ...layout } = await layOutCoco(zip, count, problems);
    if (crowds > 0)
      warn(
        'CROWDS_IGNORED',
        `${plural(crowds, 'annotation is a crowd', 'annotations are crowds')} (iscrowd): training and evaluation ignore their class there.`,
      );
    if (unlisted.length > 0)
      warn(
        'IMAGES_NOT_LISTED',
        `${plural(unlisted.length, 'file')} that no JSON file names ${unlisted.length === 1 ? 'was' : 'were'} left out: ${someOf(unlisted)}.`,
      );
    return layout;
  }
  throw new ChildError(
    'DATA_INVALID',
    'The zip is no detection dataset: there is neither a data.yaml (with images/… and labels/…, the form YOLO) nor a .json with images, annotations and categories (the form COCO).',
  );
}

/** An image's path is put together of what its files say: it must be one that can be written, and no other image's, nor its folder's. */
function checkPaths({ images }: Layout<ZipEntry>, problems: Problems): void {
  const byPath = new Map<string, ZipEntry>();
  for (const { path, file } of images) {
    const problem = nameProblem(path);
    const other = byPath.get(path.toLowerCase());
    if (problem) problems.add(file.name, problem);
    else if (other) problems.add(file.name, `would be ${printable(path)}, as ${printable(other.name)} is`);
    byPath.set(path.toLowerCase(), file);
  }
  for (const { path, file } of images) {
    for (let folder = folderOf(path.toLowerCase()); folder !== ''; folder = folderOf(folder)) {
      if (byPath.has(folder)) problems.add(file.name, 'would lie in another image');
    }
  }
  problems.check((count) => `${plural(count, 'image')} cannot have a place of ${count === 1 ? 'its' : 'their'} own.`);
}
