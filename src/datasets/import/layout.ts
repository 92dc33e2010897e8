/** What every form of a dataset's zip is read into, and what the forms share. */
import { type ChildAttempt, ChildError } from '../../jobs/childio.ts';
import type { DatasetItem } from '../../jobs/manifest.ts';
import type { ImportDatasetSpec } from '../../jobs/specs.ts';
import { unprintable } from '../../naming.ts';
import { type Problems, plural, printable } from './problems.ts';

export type ImportChild = ChildAttempt<ImportDatasetSpec>;

/** Images that are decoded at the same time take up to 200 MB each (25 megapixels, interlaced). */
export const decodersMax = 8;

export type Split = DatasetItem['split'];
export const splits: readonly Split[] = ['train', 'val', 'test'];

/** A box as its file has it; `x` and `y` are its upper left corner. */
export interface RawBox {
  label: number;
  x: number;
  y: number;
  width: number;
  height: number;
  crowd?: true;
  /** Made around a polygon or a turned box, which nobody has cut off at the edges of the image. */
  around?: boolean;
  /** Its line in a label file, its id or place in a COCO file, its place in an XML file or in an image of it. */
  at: number | string;
}

/** What a file says of one image. */
export interface Annotations {
  file: string;
  boxes: RawBox[];
  /** Of the boxes: shares of the image's width and height, or pixels. */
  unit: 'SHARE' | 'PIXEL';
  /** What `at` counts. */
  counted: 'line' | 'annotation' | 'object' | 'shape';
  /** The image's size in pixels, where the file tells it. */
  size: { width: number; height: number } | null;
}

/** An image in a dataset: of class folders it has a label, of a detection dataset annotations. */
export interface PlacedFile<F> {
  file: F;
  /** In the dataset, with the split's usual name before it where the zip says the split. */
  path: string;
  /** Null: by seed. */
  split: Split | null;
  /** Index into the classes. */
  label: number | null;
  annotations: Annotations | null;
}

export interface Layout<F> {
  images: PlacedFile<F>[];
  classes: string[];
  /** Names of documents beside the images, which are not read. */
  ignored: string[];
}

const splitNames: Record<string, Split> = {
  train: 'train',
  training: 'train',
  val: 'val',
  valid: 'val',
  validation: 'val',
  test: 'test',
  testing: 'test',
};

/** The split that a folder's name means. */
export const splitOf = (name: string): Split | undefined =>
  Object.hasOwn(splitNames, name.toLowerCase()) ? splitNames[name.toLowerCase()] : undefined;

/** The same, also with a year behind it, as COCO's folders have: train2017. */
export const splitOfYear = (name: string): Split | undefined => splitOf(name.replace(/\d{4}$/, ''));

/** What lies beside the images in many published datasets. */
export const document =
  /\.(txt|md|csv|tsv|json|jsonl|ya?ml|html?|pdf|rst|xml|names|labels|data|cfg|cache|log|py|ipynb)$|(^|\/)(readme|licen[cs]e|copying|notice)$/i;

/** What is unpacked before it is put into a zip. */
export const archive = /\.(zip|tar|tgz|gz|bz2|xz|zst|7z|rar)$/i;

export const folderOf = (name: string): string => name.slice(0, Math.max(0, name.lastIndexOf('/')));

/** The folder of a split that a path goes through, the innermost. */
export function splitFolderOf(path: string): Split | undefined {
  return folderOf(path)
    .split('/')
    .map(splitOfYear)
    .findLast((split) => split !== undefined);
}

const classesMax = 10_000;
const classCharactersMax = 200;

/** Refuses too many classes, and names that are empty, long, not printable, or the same but for the case of a letter or for spaces. */
export function checkClassNames(classes: readonly string[], problems: Problems): void {
  if (classes.length > classesMax) {
    throw new ChildError(
      'LIMIT_EXCEEDED',
      `There are ${plural(classes.length, 'class', 'classes')}; ${classesMax.toLocaleString('en-US')} are allowed.`,
    );
  }
  const byKey = new Map<string, string>();
  for (const name of classes) {
    const key = name.trim().replace(/\s+/g, ' ').toLowerCase();
    if (name.trim() === '') problems.add(name, 'is an empty name');
    if (name.length > classCharactersMax) problems.add(name, `is longer than ${classCharactersMax} characters`);
    if (unprintable.test(name)) problems.add(name, 'has control characters or direction marks');
    const other = byKey.get(key);
    if (other === name) problems.add(name, 'is the name of two classes');
    else if (other?.toLowerCase() === name.toLowerCase())
      problems.add(name, `differs from ${printable(other)} only in the case of a letter`);
    else if (other !== undefined) problems.add(name, `differs from ${printable(other)} only in spaces`);
    byKey.set(key, name);
  }
  problems.check((count) => `${plural(count, 'class name is', 'class names are')} not acceptable.`);
}
