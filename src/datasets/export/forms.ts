/** A detection dataset version in the forms that the import reads: what comes out goes in again as the same content. YOLO has no crowds. */
import { setImmediate } from 'node:timers/promises';
import { and, eq, sql } from 'drizzle-orm';
import type { Db } from '../../db.ts';
import { textFile, type ZipFile } from '../../storage/zip.ts';
import { type Item, listItems } from '../datasets.ts';
import { type ImageFiles, readImage } from '../imageTable.ts';
import { type DatasetCounts, type DatasetVersion, datasetItem, splits } from '../tables.ts';

export const exportForms = ['YOLO', 'COCO'] as const;
export type ExportForm = (typeof exportForms)[number];

/** Items that are read at once, before others get their turn. */
const pageSize = 200;

interface Source {
  db: Db;
  version: DatasetVersion;
  images: ImageFiles;
}

/** The files of a READY version of task DETECTION, in an order that only depends on it. */
export async function* exportFiles(form: ExportForm, source: Source): AsyncGenerator<ZipFile, undefined> {
  const { classesJson, countsJson } = source.version;
  const classes = classesJson ?? [];
  const filled = splits.filter((split) => (countsJson as DatasetCounts).images[split] > 0);
  const nameOf = imageNames(source);
  if (form === 'COCO') {
    for (const split of filled)
      yield { name: `annotations/instances_${split}.json`, content: () => cocoJson(source, split, classes, nameOf) };
    for await (const item of itemsOf(source)) yield image(source, item, nameOf(item));
    return;
  }
  const names = classes.map((name, i) => `  ${i}: ${JSON.stringify(name)}\n`).join('');
  yield textFile('data.yaml', `${filled.map((split) => `${split}: images/${split}\n`).join('')}names:\n${names}`);
  const stems = new Set<string>();
  for await (const item of itemsOf(source)) {
    const { stem, ending } = freeName(nameOf(item), `${item.split}/`, stems);
    yield image(source, item, `${stem}${ending}`);
    yield textFile(
      `labels/${item.split}/${stem}.txt`,
      (item.boxes ?? []).flatMap((box) => (box.crowd ? [] : labelLine(box, item))).join(''),
    );
  }
}

async function* itemsOf({ db, version }: Source, split?: Item['split']): AsyncGenerator<Item, undefined> {
  for (let after: number | null = null; ; ) {
    const page: Item[] = listItems(db, version, { split: split ?? null }, pageSize, after);
    yield* page;
    if (page.length < pageSize) return;
    after = (page.at(-1) as Item).n;
    await setImmediate();
  }
}

/** An image's path below `images/<split>/`: its path in the dataset, without the split where all have theirs before it. */
function imageNames({ db, version }: Source): (item: Item) => string {
  const bare = sql`substr(${datasetItem.path}, 1, length(${datasetItem.split}) + 1) <> ${datasetItem.split} || '/'`;
  const some = db
    .select({ n: datasetItem.n })
    .from(datasetItem)
    .where(and(eq(datasetItem.versionId, version.id), bare))
    .limit(1)
    .get();
  return ({ path, split }) => (some ? path : path.slice(split.length + 1));
}

/** The name without its ending is its label file's too: where another image has it, a number is added. */
function freeName(name: string, folder: string, taken: Set<string>): { stem: string; ending: string } {
  const ending = /\.[^./]*$/.exec(name)?.[0] ?? '';
  const plain = name.slice(0, name.length - ending.length);
  let stem = plain;
  for (let n = 2; taken.has(`${folder}${stem}`.toLowerCase()); n += 1) stem = `${plain}_${n}`;
  taken.add(`${folder}${stem}`.toLowerCase());
  return { stem, ending };
}

function image({ images }: Source, { n, split }: Item, name: string): ZipFile {
  return {
    name: `images/${split}/${name}`,
    async *content() {
      yield await readImage(images, n);
    },
  };
}

type Box = NonNullable<Item['boxes']>[number];

/** `<class> <centre x> <centre y> <width> <height>` as fractions of the image's width and height. */
const labelLine = ({ label, x, y, width, height }: Box, image: Item): string =>
  `${[label, (x + width / 2) / image.width, (y + height / 2) / image.height, width / image.width, height / image.height].join(' ')}\n`;

async function* cocoJson(
  source: Source,
  split: Item['split'],
  classes: string[],
  nameOf: (item: Item) => string,
): AsyncGenerator<Buffer, undefined> {
  const list = async function* (of: (item: Item) => object[]) {
    let first = true;
    for await (const item of itemsOf(source, split)) {
      const lines = of(item).map((value) => JSON.stringify(value));
      if (lines.length > 0) yield Buffer.from(`${first ? '' : ',\n'}${lines.join(',\n')}`);
      first &&= lines.length === 0;
    }
  };
  let id = 0;
  yield Buffer.from('{"images":[\n');
  yield* list((item) => [{ id: item.n, file_name: nameOf(item), width: item.width, height: item.height }]);
  yield Buffer.from('],"annotations":[\n');
  yield* list(({ n, boxes }) =>
    (boxes ?? []).map(({ label, x, y, width, height, crowd }) => {
      id += 1;
      return { id, image_id: n, category_id: label + 1, bbox: [x, y, width, height], area: width * height, iscrowd: crowd ? 1 : 0 };
    }),
  );
  const categories = classes.map((name, label) => ({ id: label + 1, name }));
  yield Buffer.from(`],"categories":${JSON.stringify(categories)}}\n`);
}
