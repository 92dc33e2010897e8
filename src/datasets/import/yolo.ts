/**
 * Detection datasets as text: `data.yaml` names the classes and the folders of the splits; each image under a folder `images` has a label
 * file of the same name under `labels` in its place, with a line `<class> <centre x> <centre y> <width> <height>` for each box, in shares
 * of the upright image. Both usual orders are read, `images/train` and `train/images`.
 */
import { isMap, isScalar, LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import { ChildError } from '../../jobs/childio.ts';
import { boxesPerImageMax } from '../../jobs/specs.ts';
import {
  checkClassNames,
  document,
  folderOf,
  type Layout,
  type PlacedFile,
  type RawBox,
  type Split,
  splitOfYear,
  splits,
} from './layout.ts';
import { type Problems, plural, printable } from './problems.ts';
import { type Contents, readText } from './read.ts';
import type { ZipEntry } from './zip.ts';

/** The parser's worst cases take 3 seconds for this; 10,000 names of 20 characters fit. */
const yamlBytesMax = 2 ** 18;
const labelBytesMax = 2 ** 20;

/** Of `data.yaml`, read without types: every scalar is a text. */
const folderPaths = z.union([z.string(), z.array(z.string())], 'is a folder, or a list of folders').nullish();
const DataYaml = z.object(
  {
    names: z.union([z.array(z.string()), z.record(z.string(), z.string())], 'is a list of names, or a map from numbers to names'),
    train: folderPaths,
    val: folderPaths,
    test: folderPaths,
  },
  'is a map with names',
);

/** Left beside label files by drawing programs and trainings. */
const leftOver = /(^|\/)classes\.txt$|\.cache$/i;

const withoutEnding = (path: string): string => path.replace(/\.[^./]*$/, '');

/** `path` with its last folder `from` called `to`; null when there is none. With `to` null that folder is taken out. */
function renamed(path: string, from: string, to: string | null): string | null {
  const parts = path.split('/');
  const i = parts.slice(0, -1).lastIndexOf(from);
  return i < 0 ? null : parts.toSpliced(i, 1, ...(to === null ? [] : [to])).join('/');
}

export async function layOutYolo(zip: Contents, count: (boxes: number) => void, problems: Problems): Promise<Layout<ZipEntry>> {
  const config = chooseConfig(zip.files);
  const { names, folders } = await readConfig(zip, config, problems);
  const root = folderOf(config.name) === '' ? '' : `${folderOf(config.name)}/`;

  const images = new Map<string, { file: ZipEntry; rel: string }>();
  const labels = new Map<string, ZipEntry>();
  const ignored: string[] = [];
  for (const file of zip.files) {
    const rel = file.name.slice(root.length);
    const inRoot = file.name.startsWith(root);
    const label = inRoot && /\.txt$/i.test(rel) && !leftOver.test(rel) ? renamed(rel, 'labels', 'images') : null;
    if (label !== null) labels.set(withoutEnding(label), file);
    else if (document.test(file.name) || leftOver.test(file.name)) ignored.push(file.name);
    else if (!inRoot || renamed(rel, 'images', null) === null)
      problems.add(file.name, `does not lie in a folder images beside ${printable(config.name)}`);
    else {
      const key = withoutEnding(rel);
      const other = images.get(key);
      if (other) problems.add(file.name, `has the same label file as ${printable(other.file.name)}`);
      images.set(key, { file, rel });
    }
  }
  for (const [key, file] of labels) if (!images.has(key)) problems.add(file.name, 'has no image of its name in the folder images');
  problems.check((count) => `${plural(count, 'file has', 'files have')} no place in the dataset.`);
  if (images.size === 0) throw new ChildError('DATA_INVALID', `There are no images in folders images beside ${printable(config.name)}.`);

  const splitFolders = folders ?? usualFolders([...images.values()].map(({ rel }) => rel));
  const placed: PlacedFile<ZipEntry>[] = [];
  for (const [key, { file, rel }] of images) {
    const homes = splitFolders.filter(({ folder }) => folder === '' || rel.startsWith(`${folder}/`));
    const [home] = homes;
    if (splitFolders.length > 0 && homes.length !== 1) {
      const reason = home
        ? `lies in the folders of ${homes.map(({ split, folder }) => `${split} (${folder})`).join(' and ')}`
        : 'lies in no folder of a split';
      problems.add(file.name, reason);
      continue;
    }
    const inside = home ? rel.slice(home.folder === '' ? 0 : home.folder.length + 1) : rel;
    const path = [...(home ? [home.split] : []), renamed(inside, 'images', null) ?? inside].join('/');
    const labelFile = labels.get(key);
    const boxes = labelFile
      ? parseLabels(await readText(zip, labelFile, labelBytesMax, problems), labelFile.name, names.length, problems)
      : [];
    count(boxes.length);
    const annotations = { file: labelFile?.name ?? file.name, boxes, unit: 'SHARE', place: 'line', size: null } as const;
    placed.push({ file, path, split: home?.split ?? null, label: null, annotations });
  }
  for (const { split, folder } of splitFolders) {
    if (!placed.some((image) => image.split === split)) problems.add(config.name, `${split}: there are no images in ${printable(folder)}`);
  }
  problems.check((count) => `${plural(count, 'problem')} in the labels and splits.`);
  return { images: placed, classes: names, ignored };
}

function chooseConfig(files: ZipEntry[]): ZipEntry {
  const candidates = files.filter(({ name }) => /\.ya?ml$/i.test(name));
  const named = candidates.length > 1 ? candidates.filter(({ name }) => /(^|\/)data\.ya?ml$/i.test(name)) : candidates;
  if (named.length === 1) return named[0] as ZipEntry;
  const list = candidates.slice(0, 5).map(({ name }) => printable(name));
  throw new ChildError('DATA_INVALID', `There are several YAML files, and which one is data.yaml cannot be told: ${list.join(', ')}.`);
}

type SplitFolder = { split: Split; folder: string };

/** The classes in their order, and the folders of the splits below that of `data.yaml`; null where it names none. */
async function readConfig(zip: Contents, file: ZipEntry, problems: Problems): Promise<{ names: string[]; folders: SplitFolder[] | null }> {
  const text = await readText(zip, file, yamlBytesMax, problems);
  problems.check(() => 'data.yaml cannot be read.');
  const refuse = (reason: string): never => {
    throw new ChildError('DATA_INVALID', `${printable(file.name)} is not the description of a dataset: ${reason}`);
  };
  const yaml = DataYaml.safeParse(parseYaml(text, refuse));
  if (!yaml.success) {
    const [issue] = yaml.error.issues;
    return refuse(`${issue?.path.join('.') || 'it'} ${issue?.message}.`);
  }
  const { names: given, ...paths } = yaml.data;
  const names = (Array.isArray(given) ? given : inOrder(given, refuse)).map((name) => name.normalize('NFC'));
  if (names.length === 0) refuse('names is empty.');
  checkClassNames(names, problems);
  const folders = splits.flatMap((split) =>
    [paths[split] ?? []]
      .flat()
      .filter((path) => path !== '')
      .map((path) => ({ split, folder: folderIn(path, (reason) => refuse(`${split}: ${printable(path)} ${reason}.`)) })),
  );
  return { names, folders: folders.length > 0 ? folders : null };
}

function parseYaml(text: string, refuse: (reason: string) => never): unknown {
  const lines = new LineCounter();
  try {
    // Its own search for keys that stand twice compares each with each.
    const yaml = parseDocument(text, {
      schema: 'failsafe',
      logLevel: 'silent',
      prettyErrors: false,
      uniqueKeys: false,
      lineCounter: lines,
    });
    const [error] = yaml.errors;
    if (error) refuse(`line ${lines.linePos(error.pos[0]).line}: ${printable(error.message)}.`);
    const { contents } = yaml;
    if (isMap(contents)) {
      // What else it says is not needed: only these are made values of.
      const wanted = ['names', ...splits];
      contents.items = contents.items.filter(({ key }) => isScalar(key) && wanted.includes(String(key.value)));
      for (const map of [contents, contents.get('names')]) {
        if (isMap(map) && new Set(map.items.map(({ key }) => String(key))).size < map.items.length) refuse('a key stands there twice.');
      }
    }
    return yaml.toJS({ maxAliasCount: 0 });
  } catch (error) {
    if (error instanceof ChildError) throw error;
    return refuse('it is nested too deeply, or has an alias (*) for a name or a folder.');
  }
}

/** `{0: cat, 1: dog}` as a list. */
function inOrder(names: Record<string, string>, refuse: (reason: string) => never): string[] {
  const count = Object.keys(names).length;
  return Array.from(
    { length: count },
    (_, i) => names[i] ?? refuse(`names has ${plural(count, 'entry', 'entries')}, but none for the class ${i}.`),
  );
}

/** A split's folder relative to that of `data.yaml`: `./` and `../` before it are how some programs write the same. */
function folderIn(path: string, refuse: (reason: string) => never): string {
  const folder = path
    .normalize('NFC')
    .replace(/^(\.{1,2}\/)+/, '')
    .replace(/\/+$/, '')
    .replace(/^\.$/, '');
  if (/^(\/|[A-Za-z]:)/.test(path)) return refuse('is absolute: a folder beside data.yaml is needed');
  if (/\.txt$/i.test(path)) return refuse('is a list of files: a folder is needed');
  if (folder.split('/').some((part) => part === '..' || part === '.')) return refuse('is not a plain path');
  return folder;
}

/** Where `data.yaml` names no folders: `images/train` or `train/images`, and so on, as they are there. */
function usualFolders(images: string[]): SplitFolder[] {
  const found = new Map<string, SplitFolder>();
  for (const rel of images) {
    const [first = '', second = ''] = rel.split('/');
    const split = first === 'images' ? splitOfYear(second) : second === 'images' ? splitOfYear(first) : undefined;
    if (split) found.set(`${first}/${second}`, { split, folder: `${first}/${second}` });
  }
  return [...found.values()];
}

const number = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i;

function parseLabels(text: string, file: string, classes: number, problems: Problems): RawBox[] {
  const boxes: RawBox[] = [];
  for (const [i, line] of text.split('\n').entries()) {
    const words = line.trim().split(/\s+/);
    if (words[0] === '') continue;
    const add = (reason: string) => problems.add(file, `line ${i + 1}: ${reason}`);
    const [label = -1, x = 0, y = 0, width = 0, height = 0] = words.map((word) => (number.test(word) ? Number(word) : Number.NaN));
    if (words.length !== 5) add(`has ${plural(words.length, 'number')}, but a box is <class> <centre x> <centre y> <width> <height>`);
    else if (!/^\d+$/.test(words[0] as string) || label >= classes)
      add(`the class ${printable(words[0] as string)} is none of 0 to ${classes - 1}`);
    else if (![x, y, width, height].every(Number.isFinite)) add('has something that is not a number');
    else if (width <= 0 || height <= 0) add('the width and the height of a box are above 0');
    else boxes.push({ label, x: x - width / 2, y: y - height / 2, width, height, at: i + 1 });
    if (boxes.length > boxesPerImageMax) {
      problems.add(file, `has more than ${boxesPerImageMax} boxes`);
      return [];
    }
  }
  return boxes;
}
