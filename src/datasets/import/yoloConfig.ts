/**
 * Where the form YOLO says its classes and splits: `data.yaml` under any name (`names`, `train`, `val`, `test`, `path`), Darknet's
 * `obj.names` and `obj.data`, Roboflow's `_darknet.labels`, or `classes.txt` alone.
 */
import { isMap, isScalar, LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import { ChildError } from '../../jobs/childio.ts';
import { type Split, splits } from './layout.ts';
import { plural, printable, someOf } from './problems.ts';
import { type FormReading, readText } from './reading.ts';
import type { ZipEntry } from './zip.ts';

export interface YoloConfig {
  file: ZipEntry;
  /** It, and what else was read. */
  files: ZipEntry[];
  names: string[];
  /** Of each split the folders or lists of images, as they are written; null: the file names none. */
  paths: { split: Split; path: string }[] | null;
  /** The folder that they are relative to, as it is written. */
  base: string;
  /** Numbers behind the box in a line, where objects have key points. */
  keyPoints: number | null;
}

/** The parser's worst cases take 3 seconds for this; 10,000 names of 20 characters fit. */
const yamlBytesMax = 2 ** 18;
const namesBytesMax = 2 ** 20;

/** Of `data.yaml`, read without types: every scalar is a text. */
const paths = z.union([z.string(), z.array(z.string())], 'is a folder or a list, or several of them').nullish();
const wantedCount = 'is not the number of classes in digits';
const DataYaml = z.object(
  {
    names: z.union([z.array(z.string()), z.record(z.string(), z.string())], 'is a list of names, or a map from numbers to names'),
    path: z.string().nullish().catch(null),
    train: paths,
    val: paths,
    valid: paths,
    test: paths,
    nc: z.string(wantedCount).regex(/^\d+$/, wantedCount).transform(Number).nullish(),
    kpt_shape: z.array(z.coerce.number().int().min(1).max(1000)).length(2).nullish().catch(null),
  },
  'is a map with names',
);
const wantedKeys = Object.keys(DataYaml.shape);

/** The file that says it; null where nothing looks like this form. Throws DATA_INVALID when there are several. */
export async function findYoloConfig(reading: FormReading): Promise<ZipEntry | null> {
  const { files } = reading.zip;
  const yamls: ZipEntry[] = [];
  for (const file of files.filter(({ name }) => /\.ya?ml$/i.test(name))) {
    if (isCalled(file, /^(data|dataset)\.ya?ml$/i) || (await hasNames(reading, file))) yamls.push(file);
  }
  const chosen = one(yamls, (file) => isCalled(file, /^data\.ya?ml$/i), 'YAML files');
  if (chosen) return chosen;
  const darknet = one(
    files.filter((file) => isCalled(file, /\.names$/i)),
    (file) => isCalled(file, /^obj\.names$/i),
    'files with names of classes (.names)',
  );
  if (darknet) return darknet;
  // Roboflow's: the same in the folder of each split, which is checked when it is read.
  const [labels] = files.filter((file) => isCalled(file, /^_darknet\.labels$/i));
  if (labels) return labels;
  const classes = files
    .filter((file) => isCalled(file, /^classes\.txt$/i))
    .sort((a, b) => a.name.split('/').length - b.name.split('/').length);
  return classes[0] ?? null;
}

const isCalled = ({ name }: ZipEntry, pattern: RegExp): boolean => pattern.test(name.slice(name.lastIndexOf('/') + 1));

async function hasNames({ zip }: FormReading, file: ZipEntry): Promise<boolean> {
  if (file.sizeBytes > yamlBytesMax) return false;
  const bytes = await zip.read(file).catch(() => null);
  return bytes !== null && /^['"]?names['"]?\s*:/m.test(bytes.toString('utf8').replace(/^\ufeff/, ''));
}

function one(candidates: ZipEntry[], isUsual: (file: ZipEntry) => boolean, what: string): ZipEntry | null {
  const usual = candidates.length > 1 ? candidates.filter(isUsual) : candidates;
  if (candidates.length === 0 || usual.length === 1) return usual[0] ?? null;
  const list = candidates.slice(0, 5).map(({ name }) => printable(name));
  throw new ChildError('DATA_INVALID', `There are several ${what}: ${list.join(', ')}. Keep the one that is meant.`);
}

export async function readYoloConfig(reading: FormReading, file: ZipEntry): Promise<YoloConfig> {
  if (/\.ya?ml$/i.test(file.name)) return readDataYaml(reading, file);
  const names = await readNames(reading, file);
  const same = /\.labels$/i.test(file.name) ? reading.zip.files.filter((other) => isCalled(other, /^_darknet\.labels$/i)) : [file];
  for (const other of same) {
    if ((await readNames(reading, other)).join('\n') !== names.join('\n'))
      throw new ChildError(
        'DATA_INVALID',
        `${printable(file.name)} and ${printable(other.name)} name different classes: export the dataset again.`,
      );
  }
  if (names.length === 0) throw new ChildError('DATA_INVALID', `${printable(file.name)} names no classes: write one on each line.`);
  const data =
    reading.zip.files.find((other) => isCalled(other, /^obj\.data$/i)) ?? reading.zip.files.find((other) => isCalled(other, /\.data$/i));
  const isDarknet = /\.names$/i.test(file.name) && data !== undefined;
  const paths = isDarknet ? await readObjData(reading, data, names) : null;
  return { file, files: isDarknet ? [file, data] : same, names, paths, base: '', keyPoints: null };
}

/** One on each line. */
async function readNames(reading: FormReading, file: ZipEntry): Promise<string[]> {
  const names = (await readText(reading, file, namesBytesMax)).split(/\r?\n/).map((name) => name.trim().normalize('NFC'));
  while (names.at(-1) === '') names.pop();
  const empty = names.indexOf('');
  if (empty !== -1) reading.problems.add(file.name, `line ${empty + 1} is empty: write the name of a class on each line`);
  reading.problems.check(() => `${printable(file.name)} cannot be read.`);
  return names;
}

/** A class without a name, or a name too many: which class a number means is not certain then. */
function checkClassCount(file: ZipEntry, key: string, count: number | null, names: readonly string[]): void {
  if (count === null || count === names.length) return;
  throw new ChildError(
    'DATA_INVALID',
    `${printable(file.name)}: ${key} is ${count}, but there ${names.length === 1 ? 'is' : 'are'} ${plural(names.length, 'name')}: ${someOf(names)}. Correct the one that is wrong.`,
  );
}

/** `train = data/train.txt`, a line for each. */
async function readObjData(reading: FormReading, file: ZipEntry, names: readonly string[]): Promise<YoloConfig['paths']> {
  const text = await readText(reading, file, namesBytesMax);
  const [, count] = /^[ \t]*classes[ \t]*=[ \t]*(\d+)[ \t\r]*$/im.exec(text) ?? [];
  checkClassCount(file, 'classes', count === undefined ? null : Number(count), names);
  const found = text.split(/\r?\n/).flatMap((line) => {
    const [, key, path] = /^\s*(train|val|valid|test)\s*=\s*(\S.*?)\s*$/i.exec(line) ?? [];
    return key && path ? [{ split: key.toLowerCase() === 'valid' ? ('val' as const) : (key.toLowerCase() as Split), path }] : [];
  });
  return found.length > 0 ? found : null;
}

async function readDataYaml(reading: FormReading, file: ZipEntry): Promise<YoloConfig> {
  const text = await readText(reading, file, yamlBytesMax);
  reading.problems.check(() => `${printable(file.name)} cannot be read.`);
  const refuseYaml = (reason: string): never => {
    throw new ChildError('DATA_INVALID', `${printable(file.name)} is not the description of a dataset: ${reason}`);
  };
  const yaml = DataYaml.safeParse(parseYaml(text, refuseYaml));
  if (!yaml.success) {
    const [issue] = yaml.error.issues;
    return refuseYaml(`${issue?.path.join('.') || 'it'} ${issue?.message}.`);
  }
  const { names: given, path, nc, kpt_shape, valid, ...bySplit } = yaml.data;
  const names = (Array.isArray(given) ? given : inOrder(given, refuseYaml)).map((name) => name.normalize('NFC'));
  if (names.length === 0) refuseYaml('names is empty.');
  checkClassCount(file, 'nc', nc ?? null, names);
  const found = splits.flatMap((split) =>
    [bySplit[split] ?? (split === 'val' ? valid : null) ?? []]
      .flat()
      .filter((one) => one !== '')
      .map((one) => ({ split, path: one })),
  );
  const keyPoints = kpt_shape ? (kpt_shape[0] as number) * (kpt_shape[1] as number) : null;
  return { file, files: [file], names, paths: found.length > 0 ? found : null, base: path ?? '', keyPoints };
}

function parseYaml(text: string, refuseYaml: (reason: string) => never): unknown {
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
    if (error) refuseYaml(`line ${lines.linePos(error.pos[0]).line}: ${printable(error.message)}.`);
    const { contents } = yaml;
    if (isMap(contents)) {
      // What else it says is not needed: only these are made values of.
      contents.items = contents.items.filter(({ key }) => isScalar(key) && wantedKeys.includes(String(key.value)));
      for (const map of [contents, contents.get('names')]) {
        if (isMap(map) && new Set(map.items.map(({ key }) => String(key))).size < map.items.length) refuseYaml('a key stands there twice.');
      }
    }
    return withoutNulls(yaml.toJS({ maxAliasCount: 0 }));
  } catch (error) {
    if (error instanceof ChildError) throw error;
    return refuseYaml('it is nested too deeply, or has an alias (*) for a name or a folder.');
  }
}

/** Read without types, YAML's `null` and `~` are texts. */
function withoutNulls(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).filter(([, one]) => one !== 'null' && one !== '~'));
}

/** `{0: cat, 1: dog}` as a list. */
function inOrder(names: Record<string, string>, refuseYaml: (reason: string) => never): string[] {
  const count = Object.keys(names).length;
  return Array.from(
    { length: count },
    (_, i) => names[i] ?? refuseYaml(`names has ${plural(count, 'entry', 'entries')}, but none for the class ${i}.`),
  );
}
