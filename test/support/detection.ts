import { digit, type Files } from './images.ts';

/** An image of a detection dataset; boxes are [label, left, top, width, height] in pixels. */
export interface Scene {
  split: 'train' | 'val' | 'test' | null;
  name: string;
  image: Buffer;
  boxes: number[][];
}

/** Of the images of `scenes`, in pixels. */
export const side = 28;
export const names = ['ring', 'stroke'];

/** Real digits of MNIST with made-up boxes: four to train on, one of them empty, and two to validate. */
export const scenes: Scene[] = [
  { split: 'train', name: 'a.png', image: await digit(0, 0), boxes: [[0, 3, 4, 20, 21.5]] },
  {
    split: 'train',
    name: 'more/b.png',
    image: await digit(1, 0),
    boxes: [
      [1, 10.25, 2, 8, 24],
      [0, 0, 0, 28, 28],
    ],
  },
  { split: 'train', name: 'c.png', image: await digit(2, 0), boxes: [] },
  { split: 'train', name: 'd.png', image: await digit(3, 0), boxes: [[1, 1 / 3, 2 / 3, 9.1, 3.7]] },
  { split: 'val', name: 'a.png', image: await digit(4, 0), boxes: [[0, 5, 5, 5, 5]] },
  { split: 'val', name: 'e.png', image: await digit(5, 0), boxes: [[1, 6, 6, 12, 12]] },
];

export const unsplit = (all: Scene[]): Scene[] => all.map((scene) => ({ ...scene, split: null, name: `${scene.split}-${scene.name}` }));

const labelLine = ([label, x = 0, y = 0, width = 0, height = 0]: number[]): string =>
  [label, (x + width / 2) / side, (y + height / 2) / side, width / side, height / side].join(' ');

/** As YOLO-txt: `images/train` beside `labels/train`, or `train/images` beside `train/labels`. An image without boxes has no file. */
export function yolo(all: Scene[] = scenes, { inSplits = false, yaml = '' } = {}): Files {
  const files: Files = {};
  const folders = new Map<string, string>();
  for (const { split, name, image, boxes } of all) {
    const at = (kind: string) => (split === null ? kind : inSplits ? `${split}/${kind}` : `${kind}/${split}`);
    if (split !== null) folders.set(split, at('images'));
    files[`${at('images')}/${name}`] = image;
    const labels = `${at('labels')}/${name.replace(/\.\w+$/, '.txt')}`;
    if (boxes.length > 0) files[labels] = `${boxes.map(labelLine).join('\n')}\n`;
  }
  const paths = [...folders].map(([split, folder]) => `${split}: ${folder}\n`).join('');
  files['data.yaml'] = yaml || `${paths}names: [${names.join(', ')}]\nnc: ${names.length}\n`;
  return files;
}

// biome-ignore lint/suspicious/noExplicitAny: tests break it in every way.
export type Coco = any;

/** As the annotations of one file of COCO's form; categories have gaps between their ids and are not in their order. */
export function annotationsOf(all: Scene[]): Coco {
  let id = 0;
  return {
    info: { description: 'digits', nested: [{ images: [1, '"}]'] }] },
    annotations: all.flatMap(({ boxes }, i) =>
      boxes.map(([label = 0, ...bbox]) => {
        id += 1;
        return { id, image_id: 100 + i, category_id: label === 0 ? 3 : 7, iscrowd: 0, bbox, area: 1, segmentation: [[1, 2, 3.5]] };
      }),
    ),
    images: all.map(({ name }, i) => ({ id: 100 + i, file_name: name, width: side, height: side })),
    categories: [
      { id: 7, name: names[1], supercategory: '' },
      { id: 3, name: names[0] },
    ],
  };
}

/** As COCO-json: a file for each split, images in `images/<split>`; `change` breaks the one of train. */
export function coco(all: Scene[] = scenes, change: (file: Coco) => void = () => {}): Files {
  const files: Files = {};
  for (const { split, name, image } of all) files[`images/${split === null ? '' : `${split}/`}${name}`] = image;
  for (const split of new Set(all.map((scene) => scene.split))) {
    const file = annotationsOf(all.filter((scene) => scene.split === split));
    if (split !== 'val') change(file);
    files[`annotations/${split === null ? 'all' : `instances_${split}`}.json`] = JSON.stringify(file);
  }
  return files;
}

/** Files of a dataset where one is put, or taken away (null). */
export const changed = (files: Files, change: Record<string, Buffer | string | null>): Files =>
  Object.fromEntries(Object.entries({ ...files, ...change }).filter((entry): entry is [string, Buffer | string] => entry[1] !== null));
