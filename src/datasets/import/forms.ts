/** Which form a zip has, told by what is in its files, and what they hold in that form. */
import { ChildError } from '../../jobs/childio.ts';
import { layOutClassFolders } from './classFolders.ts';
import { findCocoFiles, layOutCoco } from './coco.ts';
import { cvatRoot, layOutCvat } from './cvat.ts';
import { archive, document, folderOf, type ImportChild, type Layout } from './layout.ts';
import { nameProblem } from './names.ts';
import { type Problems, plural, printable } from './problems.ts';
import { createBoxCounter, type FormReading, readXmlRoots } from './reading.ts';
import { unreadForm } from './unread.ts';
import { layOutVoc, vocRoot } from './voc.ts';
import { layOutYolo } from './yolo.ts';
import { findYoloConfig } from './yoloConfig.ts';
import type { Zip, ZipEntry } from './zip.ts';

/** A form of the task DETECTION. */
interface Form {
  name: string;
  /** The file by which the form was recognized. */
  file: ZipEntry;
  layOut(): Promise<Layout<ZipEntry>>;
}

export async function layOut(child: ImportChild, zip: Zip, problems: Problems): Promise<Layout<ZipEntry>> {
  if (child.spec.task === 'CLASSIFICATION') return layOutClassFolders(zip.files, zip.folders, problems);
  // Some tools leave the images out unless they are asked for.
  if (zip.files.every(({ name }) => document.test(name))) {
    throw new ChildError(
      'DATA_INVALID',
      'There are no images in the zip. Export the dataset with its images: "Save images" in CVAT, "YOLO with Images" in Label Studio.',
    );
  }
  const reading: FormReading = { zip, problems, warn: child.warn, countBoxes: createBoxCounter(child.spec.limits.boxesMax) };
  const [form, other] = await formsOf(reading);
  if (!form) {
    const packed = zip.files.find(({ name }) => archive.test(name));
    throw new ChildError(
      'DATA_INVALID',
      'The zip is no detection dataset: there is neither a file with the names of the classes (data.yaml, obj.names or classes.txt, the form YOLO) ' +
        'nor a .json with images, annotations and categories (the form COCO) nor a .xml with annotations (the forms Pascal VOC and CVAT). ' +
        `A zip of class folders is imported with \`task: CLASSIFICATION\`.${packed ? ` ${printable(packed.name)} is an archive: unpack it before you make the zip.` : ''}`,
    );
  }
  if (other) {
    throw new ChildError(
      'DATA_INVALID',
      `The zip has ${printable(form.file.name)} (the form ${form.name}) and ${printable(other.file.name)} (the form ${other.name}): remove the one that is not meant.`,
    );
  }
  const layout = await form.layOut();
  checkSplits(layout, problems);
  checkPaths(layout, problems);
  return layout;
}

async function formsOf(reading: FormReading): Promise<Form[]> {
  const { coco, damaged, ...others } = await findCocoFiles(reading);
  const roots = await readXmlRoots(reading);
  const xml = [...roots.keys()].filter((file) => [vocRoot, cvatRoot].includes(roots.get(file) ?? ''));
  const voc = xml.find((file) => roots.get(file) === vocRoot);
  const cvat = xml.find((file) => roots.get(file) === cvatRoot);
  const config = await findYoloConfig(reading);
  const unread = config || coco.length > 0 || xml.length > 0 ? null : unreadForm(reading.zip.files, others);
  if (unread) throw new ChildError('DATA_INVALID', unread);
  const forms: Form[] = [];
  // `classes.txt` stands beside other forms too.
  const isYolo = config && (!/classes\.txt$/i.test(config.name) || (coco.length === 0 && xml.length === 0 && hasLabels(reading)));
  if (isYolo) forms.push({ name: 'YOLO', file: config, layOut: () => layOutYolo(reading, config) });
  // A damaged JSON file is named, unless the dataset has another form.
  const json = coco.length > 0 || (!isYolo && xml.length === 0) ? [...coco, ...damaged] : [];
  if (json[0]) forms.push({ name: 'COCO', file: json[0], layOut: () => layOutCoco(reading, json) });
  if (voc) forms.push({ name: 'Pascal VOC', file: voc, layOut: () => layOutVoc(reading, roots) });
  if (cvat) forms.push({ name: 'CVAT', file: cvat, layOut: () => layOutCvat(reading, roots) });
  return forms;
}

/** Whether an image has a text file of its name. */
function hasLabels({ zip }: FormReading): boolean {
  const stem = ({ name }: ZipEntry) => name.slice(folderOf(name).length).replace(/\.[^.]*$/, '');
  const texts = new Set(zip.files.filter(({ name }) => /\.txt$/i.test(name)).map(stem));
  return zip.files.some((file) => !document.test(file.name) && texts.has(stem(file)));
}

/** Where folders tell the split of some images, the others would have none. */
function checkSplits({ images }: Layout<ZipEntry>, problems: Problems): void {
  const open = images.filter(({ split }) => split === null);
  if (open.length === images.length) return;
  for (const { file } of open) problems.add(file.name, 'lies in no folder of a split, as others do', file.name);
  problems.check((count) => `${plural(count, 'image has', 'images have')} no split.`);
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
