/** Detection datasets as tools write them, with their odd sides: each is built here as its tool lays it out. */
import { describe, expect, test } from 'vitest';
import { digit, type Files } from './support/images.ts';
import { type Imported, withImport } from './support/imports.ts';

const side = 28;
/** Four images, the last two to validate with; boxes are [class, left, top, width, height] in pixels. */
const scenes = await Promise.all(
  [
    { name: 'a', split: 'train', boxes: [['cat', 2, 4, 10, 12]] },
    {
      name: 'b c',
      split: 'train',
      boxes: [
        ['dog', 4, 4, 8, 8],
        ['cat', 10, 10, 16, 14],
      ],
    },
    { name: 'd', split: 'val', boxes: [['dog', 6, 2, 20, 20]] },
    { name: 'e', split: 'val', boxes: [] },
  ].map(async (scene, n) => ({
    ...(scene as { name: string; split: 'train' | 'val'; boxes: [string, number, number, number, number][] }),
    image: await digit(n, 0),
  })),
);
type Scene = (typeof scenes)[number];
const classes = ['cat', 'dog'];

const lines = ({ boxes }: Scene): string =>
  boxes
    .map(([name, x, y, w, h]) => `${classes.indexOf(name)} ${(x + w / 2) / side} ${(y + h / 2) / side} ${w / side} ${h / side}\n`)
    .join('');

/** An image and a label file for each scene, where the tool puts them. */
const files = (image: (scene: Scene) => string, label: (scene: Scene) => string): Files =>
  Object.fromEntries(
    scenes.flatMap((scene) => [
      [image(scene), scene.image],
      [label(scene), lines(scene)],
    ]),
  );

const of = (split: string) => scenes.filter((scene) => scene.split === split);
const nameList = (split: string, path: (scene: Scene) => string) => of(split).map(path).join('\n');

const cocoOf = (all: Scene[], change: object = {}) =>
  JSON.stringify({
    info: {},
    licenses: [],
    images: all.map(({ name }, i) => ({ id: i + 1, file_name: `${name}.png`, width: side, height: side })),
    annotations: all.flatMap(({ boxes }, i) =>
      boxes.map(([name, ...bbox], k) => ({
        id: i * 10 + k,
        image_id: i + 1,
        category_id: classes.indexOf(name) + 1,
        bbox,
        iscrowd: 0,
        segmentation: [],
      })),
    ),
    categories: classes.map((name, i) => ({ id: i + 1, name, supercategory: 'animal' })),
    ...change,
  });

const xmlOf = ({ name, boxes }: Scene, fileName = `${name}.png`): string =>
  `<annotation><folder>x</folder><filename>${fileName}</filename><source><database>Unknown</database></source>` +
  `<size><width>${side}</width><height>${side}</height><depth>3</depth></size><segmented>0</segmented>` +
  `${boxes.map(([label, x, y, w, h]) => `<object><name>${label}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult><bndbox><xmin>${x}</xmin><ymin>${y}</ymin><xmax>${x + w}</xmax><ymax>${y + h}</ymax></bndbox></object>`).join('')}</annotation>`;

/** As CVAT writes its own form: the labels of a task, and the images with their shapes. */
const cvatOf = (
  all: Scene[],
  { image = ({ name }: Scene) => `name="${name}.png"`, shapes = {} as Record<string, string>, labels = classes } = {},
): string =>
  `<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta>\n    <task>\n      <id>7</id>\n      <name>pets</name>\n      <labels>${labels
    .map(
      (name) =>
        `\n        <label>\n          <name>${name}</name>\n          <color>#fa3253</color>\n          <type>any</type>\n          <attributes>\n          </attributes>\n        </label>`,
    )
    .join('')}\n      </labels>\n    </task>\n    <dumped>2026-01-02 03:04:05.678901+00:00</dumped>\n  </meta>\n${all
    .map((scene, i) => {
      const boxes = scene.boxes.map(
        ([label, x, y, w, h]) =>
          `    <box label="${label}" source="manual" occluded="0" xtl="${x}.00" ytl="${y}.00" xbr="${x + w}.00" ybr="${y + h}.00" z_order="0">\n      <attribute name="breed">a > b</attribute>\n    </box>\n`,
      );
      return `  <image id="${i}" ${image(scene)} width="${side}" height="${side}">\n${shapes[scene.name] ?? boxes.join('')}  </image>\n`;
    })
    .join('')}</annotations>\n`;

const images = (path: (scene: Scene) => string): Files => Object.fromEntries(scenes.map((scene) => [path(scene), scene.image]));
const flat = ({ name }: Scene) => `images/${name}.png`;
const bySplit = ({ split, name }: Scene) => `images/${split}/${name}.png`;

interface Form {
  tool: string;
  zip: Files;
  /** Without splits in the zip, images are divided by the seed. */
  seeded?: true;
  warnings?: string[];
}

const forms: Form[] = [
  {
    tool: 'YOLO with lists of images in data.yaml, of another machine',
    zip: {
      ...files(bySplit, ({ split, name }) => `labels/${split}/${name}.txt`),
      'data.yaml': 'path: /content/datasets/pets\ntrain: train.txt\nval: val.txt\nnames: [cat, dog]\n',
      'train.txt': nameList('train', (s) => `/content/datasets/pets/images/train/${s.name}.png`),
      'val.txt': nameList('val', (s) => `C:\\pets\\images\\val\\${s.name}.png`),
    },
  },
  {
    tool: 'YOLO with absolute folders and %20',
    zip: {
      ...files(bySplit, ({ split, name }) => `labels/${split}/${name}.txt`),
      'data.yaml': 'train: /home/ann/pets/images/train\nval: D:\\pets\\images\\val\nnames: {0: cat, 1: dog}\n',
    },
  },
  {
    tool: 'YOLO with `path:`',
    zip: {
      ...files(
        (s) => `pets/${bySplit(s)}`,
        ({ split, name }) => `pets/labels/${split}/${name}.txt`,
      ),
      'pets.yaml': 'path: ../datasets/pets  # root\ntrain: images/train\nval: images/val\ntest:\nnames:\n  0: cat\n  1: dog\n',
    },
  },
  {
    tool: 'Roboflow YOLO, which names a test split that is not there',
    zip: {
      ...files(
        ({ split, name }) => `${split === 'val' ? 'valid' : split}/images/${name}.png`,
        ({ split, name }) => `${split === 'val' ? 'valid' : split}/labels/${name}.txt`,
      ),
      'data.yaml': "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['cat', 'dog']\n",
      'README.roboflow.txt': 'x',
    },
    warnings: ['SPLIT_MISSING', 'FILES_IGNORED'],
  },
  {
    tool: 'Label Studio YOLO: classes.txt, no data.yaml',
    zip: {
      ...files(flat, ({ name }) => `labels/${name}.txt`),
      'classes.txt': 'cat\ndog\n',
      'notes.json': '{"categories":[{"id":0,"name":"cat"}],"info":{}}',
    },
    seeded: true,
    warnings: ['FILES_IGNORED'],
  },
  {
    tool: 'Darknet and CVAT YOLO 1.1: obj.names and obj.data, labels beside images',
    zip: {
      ...files(
        ({ split, name }) => `obj_${split}_data/${name}.png`,
        ({ split, name }) => `obj_${split}_data/${name}.txt`,
      ),
      'obj.names': 'cat\ndog\n',
      'obj.data': 'classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = backup/\n',
      'train.txt': nameList('train', (s) => `data/obj_train_data/${s.name}.png`),
      'valid.txt': nameList('val', (s) => `data/obj_val_data/${s.name}.png`),
    },
  },
  {
    tool: 'CVAT Ultralytics YOLO: data.yaml with lists',
    zip: {
      ...files(bySplit, ({ split, name }) => `labels/${split}/${name}.txt`),
      'data.yaml': 'names:\n  0: cat\n  1: dog\npath: .\ntrain: train.txt\nval: val.txt\n',
      'train.txt': nameList('train', (s) => `data/images/train/${s.name}.png`),
      'val.txt': nameList('val', (s) => `data/images/val/${s.name}.png`),
    },
  },
  {
    tool: 'FiftyOne YOLOv5: dataset.yaml',
    zip: {
      ...files(bySplit, ({ split, name }) => `labels/${split}/${name}.txt`),
      'dataset.yaml': 'names:\n  0: cat\n  1: dog\npath: /tmp/export\ntrain: ./images/train/\nval: ./images/val/\n',
    },
  },
  {
    tool: 'FiftyOne YOLOv4: data/ with labels beside images',
    zip: {
      ...files(
        ({ name }) => `data/${name}.png`,
        ({ name }) => `data/${name}.txt`,
      ),
      'obj.names': 'cat\ndog',
      'images.txt': scenes.map(({ name }) => `data/${name}.png`).join('\n'),
    },
    seeded: true,
    warnings: ['FILES_IGNORED'],
  },
  {
    tool: 'COCO 2017 as published, with captions, keypoints and an unlabelled test set beside it',
    zip: {
      ...images(({ split, name }) => `${split}2017/${name}.png`),
      ...Object.fromEntries(
        ['train', 'val'].flatMap((split) => [
          [`annotations/instances_${split}2017.json`, cocoOf(of(split))],
          [
            `annotations/captions_${split}2017.json`,
            cocoOf(of(split), { categories: undefined, annotations: [{ id: 1, image_id: 1, caption: 'A cat.' }] }),
          ],
          [`annotations/person_keypoints_${split}2017.json`, cocoOf(of(split), { categories: [{ id: 1, name: 'person' }] })],
        ]),
      ),
      'annotations/image_info_test2017.json': cocoOf([], { annotations: undefined }),
    },
    warnings: ['FILES_IGNORED'],
  },
  {
    tool: 'CVAT COCO: images/default',
    zip: { ...images(({ name }) => `images/default/${name}.png`), 'annotations/instances_default.json': cocoOf(scenes) },
    seeded: true,
  },
  {
    tool: 'CVAT for images 1.1 of a task',
    zip: { ...images(flat), 'annotations.xml': cvatOf(scenes) },
    seeded: true,
  },
  {
    tool: 'CVAT for images 1.1 of a project: a subset for each image, which is a folder too',
    zip: {
      ...images(({ split, name }) => `images/${split === 'val' ? 'Validation' : 'Train'}/${name}.png`),
      'annotations.xml': cvatOf(scenes, {
        image: ({ split, name }) => `name="${name}.png" subset="${split === 'val' ? 'Validation' : 'Train'}" task_id="7"`,
      }),
    },
  },
  {
    tool: 'CVAT for images 1.1: the images in folders of splits, without subsets',
    zip: {
      ...images(bySplit),
      'annotations.xml': cvatOf(scenes, { image: ({ split, name }) => `name="${split}/${name}.png" subset="default"` }),
    },
  },
  {
    tool: 'CVAT for images 1.1: a file for each task',
    zip: Object.fromEntries(
      ['train', 'val'].flatMap((split) => [
        ...of(split).map((scene): [string, Buffer] => [`${split}/images/${scene.name}.png`, scene.image]),
        [`${split}/annotations.xml`, cvatOf(of(split))] as [string, string],
      ]),
    ),
  },
  {
    tool: 'FiftyOne COCO: data/ and labels.json',
    zip: { ...images(({ name }) => `data/${name}.png`), 'labels.json': cocoOf(scenes) },
    seeded: true,
  },
  {
    tool: 'Label Studio COCO: result.json with paths of its server',
    zip: {
      ...images(flat),
      'result.json': cocoOf(scenes, {
        images: scenes.map(({ name }, i) => ({
          id: i + 1,
          file_name: `../../label-studio/data/media/upload/1/${name.replace(' ', '%20')}.png`,
          width: side,
          height: side,
        })),
      }),
    },
    seeded: true,
  },
  {
    tool: 'Label Studio COCO: result.json with images/',
    zip: {
      ...images(flat),
      'result.json': cocoOf(scenes, {
        images: scenes.map(({ name }, i) => ({ width: side, height: side, id: i + 1, file_name: `images/${name}.png` })),
        info: { year: 2026, version: '1.0', contributor: 'Label Studio' },
      }),
    },
    seeded: true,
  },
  {
    tool: 'Label Studio COCO of Windows: images\\',
    zip: {
      ...images(flat),
      'result.json': cocoOf(scenes, {
        images: scenes.map(({ name }, i) => ({ width: side, height: side, id: i + 1, file_name: `images\\${name}.png` })),
      }),
    },
    seeded: true,
  },
  {
    tool: 'Label Studio VOC: Annotations/ and images/',
    zip: { ...images(flat), ...Object.fromEntries(scenes.map((scene) => [`Annotations/${scene.name}.xml`, xmlOf(scene, scene.name)])) },
    seeded: true,
  },
  {
    tool: 'FiftyOne VOC: data/ and labels/',
    zip: {
      ...images(({ name }) => `data/${name}.png`),
      ...Object.fromEntries(
        scenes.map((scene) => [`labels/${scene.name}.xml`, xmlOf(scene).replace('<folder>x</folder>', '<folder></folder>')]),
      ),
    },
    seeded: true,
  },
  {
    tool: 'Roboflow Darknet: _darknet.labels in the folder of each split',
    zip: {
      ...files(
        ({ split, name }) => `${split === 'val' ? 'valid' : split}/${name}.png`,
        ({ split, name }) => `${split === 'val' ? 'valid' : split}/${name}.txt`,
      ),
      'train/_darknet.labels': 'cat\ndog',
      'valid/_darknet.labels': 'cat\ndog',
      'README.dataset.txt': 'x',
      'README.roboflow.txt': 'x',
    },
    warnings: ['FILES_IGNORED'],
  },
  {
    tool: 'YOLO: classes.txt beside folders of splits, with labels beside the images',
    zip: {
      ...files(
        ({ split, name }) => `${split}/${name}.png`,
        ({ split, name }) => `${split}/${name}.txt`,
      ),
      'classes.txt': 'cat\ndog',
    },
  },
  {
    tool: 'Roboflow COCO: an unused category above all others',
    zip: {
      ...images(({ split, name }) => `${split === 'val' ? 'valid' : split}/${name}.png`),
      ...Object.fromEntries(
        ['train', 'val'].map((split) => [
          `${split === 'val' ? 'valid' : split}/_annotations.coco.json`,
          cocoOf(of(split), {
            categories: [
              { id: 0, name: 'pets', supercategory: 'none' },
              ...classes.map((name, i) => ({ id: i + 1, name, supercategory: 'pets' })),
            ],
          }),
        ]),
      ),
    },
    warnings: ['SUPERCATEGORY_LEFT_OUT'],
  },
  {
    tool: 'Pascal VOC as published',
    zip: {
      ...images(({ name }) => `VOCdevkit/VOC2012/JPEGImages/${name}.png`),
      ...Object.fromEntries(scenes.map((scene) => [`VOCdevkit/VOC2012/Annotations/${scene.name}.xml`, xmlOf(scene)])),
      'VOCdevkit/VOC2012/ImageSets/Main/train.txt': nameList('train', ({ name }) => name),
      'VOCdevkit/VOC2012/ImageSets/Main/val.txt': nameList('val', ({ name }) => name),
      'VOCdevkit/VOC2012/ImageSets/Main/trainval.txt': scenes.map(({ name }) => name).join('\n'),
      'VOCdevkit/VOC2012/ImageSets/Main/cat_train.txt': nameList('train', ({ name }) => `${name}  1`),
    },
    warnings: ['FILES_IGNORED'],
  },
  {
    tool: 'CVAT VOC: labelmap.txt and ImageSets/Main/default.txt',
    zip: {
      ...images(({ name }) => `JPEGImages/${name}.png`),
      ...Object.fromEntries(scenes.map((scene) => [`Annotations/${scene.name}.xml`, xmlOf(scene)])),
      'ImageSets/Main/default.txt': scenes.map(({ name }) => name).join('\n'),
      'labelmap.txt': '# label:color_rgb:parts:actions\ncat:1,2,3::\n',
    },
    seeded: true,
    warnings: ['FILES_IGNORED'],
  },
  {
    tool: 'Roboflow VOC: XML beside the images',
    zip: {
      ...images(({ split, name }) => `${split === 'val' ? 'valid' : split}/${name}.png`),
      ...Object.fromEntries(scenes.map((scene) => [`${scene.split === 'val' ? 'valid' : scene.split}/${scene.name}.xml`, xmlOf(scene)])),
    },
  },
  {
    tool: 'LabelImg: images that were renamed after drawing',
    zip: { ...images(flat), ...Object.fromEntries(scenes.map((scene) => [`annotations/${scene.name}.xml`, xmlOf(scene, 'IMG_1.png')])) },
    seeded: true,
  },
];

const said = ({ error }: Imported): string => [error?.message, ...(error?.details ?? [])].join('\n');
const named = (path: string) => path.replace(/^.*\//, '').replace(/\.\w+$/, '');

/** "a: cat 2 4 10 12" for each box, by the names of images. */
const boxesOf = ({ items, summary }: Imported): string[] =>
  items()
    .flatMap(
      ({ path, boxes }) => boxes?.map((b) => `${named(path)}: ${summary().classes[b.label]} ${b.x} ${b.y} ${b.width} ${b.height}`) ?? [],
    )
    .sort();
const expected = scenes.flatMap(({ name, boxes }) => boxes.map((box) => `${name}: ${box.join(' ')}`)).sort();

const task = { task: 'DETECTION' } as const;

describe('forms of datasets, as their tools write them', () => {
  test.each(forms)('$tool', ({ zip, seeded, warnings = [] }) =>
    withImport(
      zip,
      (imported) => {
        expect(said(imported)).toBe('');
        expect(imported.summary().classes).toEqual(classes);
        expect(boxesOf(imported)).toEqual(expected);
        if (!seeded)
          expect(
            imported
              .paths()
              .map((path) => `${path.split(' ')[0]} ${named(path)}`)
              .sort(),
          ).toEqual(scenes.map(({ name, split }) => `${split} ${name}`).sort());
        expect(imported.warnings.filter((code) => !['IMAGES_WITHOUT_BOXES', 'CLASSES_WITHOUT_BOXES'].includes(code)).sort()).toEqual(
          [...warnings].sort(),
        );
      },
      task,
    ),
  );
});

const yolo = (label: string, extra: Files = {}, yaml = 'names: [cat, dog]'): Files => ({
  'images/a.png': scenes[0]?.image ?? '',
  'images/f.png': scenes[1]?.image ?? '',
  'labels/a.txt': label,
  'labels/f.txt': '0 .5 .5 .5 .5',
  'data.yaml': yaml,
  ...extra,
});
const boxesOfA = (imported: Imported) => boxesOf(imported).filter((line) => line.startsWith('a:'));
const messageOf = ({ events }: Imported, code: string) =>
  events.flatMap((e) => (e.type === 'warning' && e.code === code ? [e.message] : []))[0];

describe('labels', () => {
  test.each<[string, Files, string[], string[]]>([
    ['a polygon is the box around it', yolo('1 0.25 0.25 0.75 0.25 0.5 0.5'), ['a: dog 7 7 14 7'], ['POLYGONS_AS_BOXES']],
    ['a turned box is the box around it', yolo('0 0.5 0.25 0.75 0.5 0.5 0.75 0.25 0.5'), ['a: cat 7 7 14 14'], ['POLYGONS_AS_BOXES']],
    [
      'whole numbers in any notation',
      yolo('1.0 .5 .5 .5 .5\n0.0 5e-1 0.5 2.5E-1 .25\n1.0e+00 0.5 0.5 0.25 0.25'),
      ['a: cat 10.5 10.5 7 7', 'a: dog 10.5 10.5 7 7', 'a: dog 7 7 14 14'],
      [],
    ],
    [
      'key points behind a box are passed over',
      yolo('0 .5 .5 .5 .5 .1 .1 2 .2 .2 1', {}, 'names: [cat, dog]\nkpt_shape: [2, 3]').valueOf() as Files,
      ['a: cat 7 7 14 14'],
      [],
    ],
    ['boxes without area are left out', yolo('0 .5 .5 0 .1\n0 .5 .5 .5 .5\n1 .5 .5 .1 1e-9'), ['a: cat 7 7 14 14'], ['BOXES_WITHOUT_AREA']],
    ['a byte order mark is nothing', yolo('\ufeff0 .5 .5 .5 .5', { 'data.yaml': '\ufeffnames: [cat, dog]' }), ['a: cat 7 7 14 14'], []],
  ])('YOLO: %s', (_what, zip, boxes, warnings) =>
    withImport(
      // One key point line in both.
      zip['data.yaml']?.includes('kpt_shape') ? { ...zip, 'labels/f.txt': '0 .5 .5 .5 .5 .1 .1 2 .2 .2 1' } : zip,
      (imported) => {
        expect(said(imported)).toBe('');
        expect(boxesOfA(imported)).toEqual(boxes);
        expect(imported.warnings.filter((code) => code !== 'CLASSES_WITHOUT_BOXES')).toEqual(warnings);
      },
      task,
    ),
  );

  const coco = (change: object): Files => ({ ...images(flat), 'labels.json': cocoOf(scenes, change) });
  const annotations = (first: object) => [
    { id: 1, image_id: 1, category_id: 1, bbox: [2, 4, 10, 12], ...first },
    { id: 2, image_id: 2, category_id: 1, bbox: [0, 0, 9, 9] },
    { id: 3, image_id: 3, category_id: 1, bbox: [0, 0, 9, 9] },
    { id: 4, image_id: 4, category_id: 1, bbox: [0, 0, 9, 9] },
  ];
  test.each<[string, Files, string[], string[]]>([
    [
      'a box without height is left out, as the official set has two',
      coco({ annotations: annotations({ bbox: [2, 4, 10, 0] }) }),
      [],
      ['BOXES_WITHOUT_AREA', 'IMAGES_WITHOUT_BOXES'],
    ],
    [
      'a polygon without bbox is the box around it',
      coco({ annotations: annotations({ bbox: null, segmentation: [[1, 2, 11, 2, 11, 22]] }) }),
      ['a: cat 1 2 10 20'],
      ['POLYGONS_AS_BOXES'],
    ],
    [
      'null is absence',
      coco({
        annotations: annotations({ iscrowd: null, area: null, segmentation: null }),
        images: scenes.map(({ name }, i) => ({ id: i + 1, file_name: `${name}.png`, width: null, height: null })),
      }),
      ['a: cat 2 4 10 12'],
      [],
    ],
    [
      'ids of annotations are optional and of any type',
      coco({ annotations: annotations({ id: undefined }).map((a, i) => ({ ...a, id: [undefined, 'x', null, { a: 1 }][i] })) }),
      ['a: cat 2 4 10 12'],
      [],
    ],
    [
      'ids of images and categories may be texts',
      coco({ annotations: annotations({}).map((a) => ({ ...a, image_id: String(a.image_id), category_id: '1' })) }),
      ['a: cat 2 4 10 12'],
      [],
    ],
    [
      'a segmentation as run lengths is passed over',
      coco({ annotations: annotations({ segmentation: { counts: [1], size: [1, 1] } }) }),
      ['a: cat 2 4 10 12'],
      [],
    ],
  ])('COCO: %s', (_what, zip, boxes, warnings) =>
    withImport(
      zip,
      (imported) => {
        expect(said(imported)).toBe('');
        expect(boxesOfA(imported)).toEqual(boxes);
        expect(imported.warnings.filter((code) => code !== 'CLASSES_WITHOUT_BOXES')).toEqual(warnings);
      },
      task,
    ),
  );

  // Beyond 2⁵³ a number would be rounded, and both images the same.
  const [first, second] = ['9007199254740992', '9007199254740993'];
  const withIds = (text: string): Files => ({
    ...images(flat),
    'labels.json': text.replaceAll('"first"', first as string).replaceAll('"second"', second as string),
  });
  const largeImages = scenes.map(({ name }, i) => ({
    id: ['first', 'second'][i] ?? i,
    file_name: `${name}.png`,
    width: side,
    height: side,
  }));
  test('COCO: ids beyond 2⁵³ are exact: of images and of categories', () =>
    withImport(
      withIds(
        cocoOf(scenes, {
          images: largeImages,
          categories: [
            { id: 'first', name: 'cat' },
            { id: 'second', name: 'dog' },
          ],
          annotations: [
            { id: 'first', image_id: 'first', category_id: 'second', bbox: [1, 2, 3, 4] },
            { id: 'second', image_id: 'second', category_id: 'first', bbox: [5, 6, 7, 8] },
            { id: 1, image_id: 2, category_id: 'first', bbox: [0, 0, 9.12345678901234, 9] },
          ],
        }),
      ),
      (imported) => {
        expect(said(imported)).toBe('');
        expect(boxesOf(imported).slice(0, 2)).toEqual(['a: dog 1 2 3 4', 'b c: cat 5 6 7 8']);
      },
      task,
    ));

  test('COCO: an annotation of an image whose id differs beyond 2⁵³ is of no image', () =>
    withImport(
      withIds(
        cocoOf(scenes, {
          images: largeImages.slice(0, 1),
          annotations: [{ id: 1, image_id: 'second', category_id: 1, bbox: [1, 2, 3, 4] }],
        }),
      ),
      (imported) => expect(said(imported)).toContain('annotation 1: there is no image 9007199254740993'),
      task,
    ));

  test('COCO: a byte order mark is nothing', () =>
    withImport(
      { ...images(flat), 'labels.json': `\ufeff${cocoOf(scenes)}` },
      (imported) => expect(boxesOf(imported)).toEqual(expected),
      task,
    ));

  test('COCO: categories of splits are matched by name, whatever their ids and order', () =>
    withImport(
      {
        ...images(bySplit),
        'instances_train.json': cocoOf(of('train')),
        'instances_val.json': cocoOf(of('val'), {
          categories: [
            { id: 9, name: 'cat' },
            { id: 5, name: 'dog' },
            { id: 7, name: 'cow' },
          ],
          annotations: [{ id: 1, image_id: 1, category_id: 5, bbox: [6, 2, 20, 20] }],
        }),
      },
      (imported) => {
        expect(imported.summary().classes).toEqual(['cat', 'dog', 'cow']);
        expect(boxesOf(imported)).toEqual(expected);
      },
      task,
    ));

  test('COCO: an image that shows a crowd only is left out, with a warning', () =>
    withImport(
      coco({ annotations: annotations({ iscrowd: 1 }) }),
      (imported) => {
        expect(imported.summary().items).toBe(3);
        expect(messageOf(imported, 'IMAGES_OF_CROWDS')).toContain('images/a.png');
      },
      task,
    ));

  // 20 × 10 pixels about (14, 14), turned by 90 degrees: 10 × 20.
  const turned = { name: 'cat', left: 4, top: 9, right: 24, bottom: 19 };
  test.each<[string, Files]>([
    ['COCO', coco({ annotations: annotations({ bbox: [4, 9, 20, 10], attributes: { occluded: false, rotation: 90.0 } }) })],
    [
      'Pascal VOC',
      {
        ...images(flat),
        ...Object.fromEntries(scenes.map((scene) => [`Annotations/${scene.name}.xml`, xmlOf(scene)])),
        'Annotations/a.xml': `<annotation><object><name>${turned.name}</name><bndbox><xmin>${turned.left}</xmin><ymin>${turned.top}</ymin><xmax>${turned.right}</xmax><ymax>${turned.bottom}</ymax></bndbox><attributes><attribute><name>occluded</name><value>0</value></attribute><attribute><name>rotation</name><value>90.0</value></attribute></attributes></object></annotation>`,
      },
    ],
  ])('CVAT %s: a box that is turned by its `rotation` is the box around it', (_form, zip) =>
    withImport(
      zip,
      (imported) => {
        expect(said(imported)).toBe('');
        expect(boxesOfA(imported)).toEqual(['a: cat 9 4 10 20']);
        expect(imported.warnings).toContain('POLYGONS_AS_BOXES');
      },
      task,
    ),
  );

  test.each<[string, Files]>([
    ['COCO', { ...images(flat), 'LABELS.JSON': cocoOf(scenes).replaceAll(/"([^"]+)\.png"/g, (_, name) => `"${name.toUpperCase()}.PNG"`) }],
    [
      'Pascal VOC',
      { ...images(flat), ...Object.fromEntries(scenes.map((scene) => [`Annotations/${scene.name.toUpperCase()}.XML`, xmlOf(scene)])) },
    ],
    [
      'CVAT for images',
      { ...images(flat), 'annotations.xml': cvatOf(scenes, { image: ({ name }) => `name="Images\\${name.toUpperCase()}.Png"` }) },
    ],
  ])('%s: an image is found whatever the case of its name', (_form, zip) =>
    withImport(
      zip,
      (imported) => {
        expect(said(imported)).toBe('');
        expect(boxesOf(imported).map((line) => line.toLowerCase())).toEqual(expected);
      },
      task,
    ),
  );

  const roLabelImg = (angle: string, [x, y, w, h] = [14, 14, 20, 10]) =>
    `<annotation verified="no"><object><type>robndbox</type><name>cat</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult><robndbox><cx>${x}</cx><cy>${y}</cy><w>${w}</w><h>${h}</h><angle>${angle}</angle></robndbox></object></annotation>`;
  const voc = (first: string): Files => ({
    ...images(flat),
    ...Object.fromEntries(scenes.map((scene) => [`Annotations/${scene.name}.xml`, xmlOf(scene)])),
    'Annotations/a.xml': first,
  });
  test.each([
    ['as it is', '0.0', ['a: cat 4 9 20 10']],
    ['turned by a quarter', String(Math.PI / 2), ['a: cat 9 4 10 20']],
  ])('VOC of roLabelImg: a robndbox, %s, is the box around it, and counted', (_how, angle, boxes) =>
    withImport(
      voc(roLabelImg(angle)),
      (imported) => {
        expect(said(imported)).toBe('');
        expect(boxesOfA(imported)).toEqual(boxes);
        expect(messageOf(imported, 'POLYGONS_AS_BOXES')).toMatch(/^1 shape that is no upright box was replaced/);
      },
      task,
    ),
  );

  test('VOC of roLabelImg: a robndbox without its angle is refused with its file', () =>
    withImport(
      voc(roLabelImg('')),
      (imported) => expect(said(imported)).toContain('Annotations/a.xml: object 1: has no angle in its robndbox'),
      task,
    ));

  test('a turned box that reaches out of its image is cut off there; one whose centre is outside is refused', async () => {
    await withImport(
      voc(roLabelImg(String(Math.PI / 2), [14, 20, 20, 10])),
      (imported) => {
        expect(said(imported)).toBe('');
        expect(boxesOfA(imported)).toEqual(['a: cat 9 10 10 18']);
        expect(imported.warnings).toContain('BOXES_CLIPPED');
      },
      task,
    );
    await withImport(
      voc(roLabelImg(String(Math.PI / 2), [14, 29, 20, 10])),
      (imported) => expect(said(imported)).toContain('object 1: the box reaches 11.0 pixels out of the image'),
      task,
    );
  });

  const cvat = (shapes: string): Files => ({ ...images(flat), 'annotations.xml': cvatOf(scenes, { shapes: { a: shapes } }) });
  const common = 'source="manual" occluded="0" z_order="0"';
  test.each<[string, string, string[], RegExp | null]>([
    ['a polygon', `<polygon label="cat" ${common} points="1.00,2.00;11.00,2.00;11.50,22.00"></polygon>`, ['a: cat 1 2 10.5 20'], null],
    ['a turned box', `<box label="cat" ${common} xtl="4.0" ytl="9.0" xbr="24.0" ybr="19.0" rotation="90.00"/>`, ['a: cat 9 4 10 20'], null],
    ['a mask', `<mask label="dog" ${common} rle="1, 2, 3" left="3" top="4" width="5" height="6"></mask>`, ['a: dog 3 4 5 6'], null],
    [
      'a turned ellipse',
      `<ellipse label="dog" ${common} cx="14" cy="14" rx="10" ry="5" rotation="90"></ellipse>`,
      ['a: dog 9 4 10 20'],
      null,
    ],
    [
      'a cuboid',
      `<cuboid label="cat" ${common} xtl1="4" ytl1="5" xbl1="4" ybl1="15" xtr1="10" ytr1="5" xbr1="10" ybr1="15" xtl2="14" ytl2="3" xbl2="14" ybl2="12" xtr2="11" ytr2="4" xbr2="11" ybr2="12"/>`,
      ['a: cat 4 3 10 12'],
      null,
    ],
    [
      'what has no area, and what is outside',
      `<tag label="cat" source="manual"></tag><points label="cat" ${common} points="1,2"/><polyline label="cat" ${common} points="1,2;3,4"/>` +
        `<skeleton label="cat" z_order="0"><points label="1" outside="0" occluded="0" points="1,2"/></skeleton><box label="cat" ${common} outside="1" xtl="1" ytl="1" xbr="9" ybr="9"/>`,
      [],
      /^5 annotations that no box can be made of were left out: 1 tag, 1 points, 1 polyline, 1 skeleton, 1 outside\.$/,
    ],
  ])('CVAT for images: %s', (_what, shapes, boxes, leftOut) =>
    withImport(
      cvat(shapes),
      (imported) => {
        expect(said(imported)).toBe('');
        expect(boxesOfA(imported)).toEqual(boxes);
        if (leftOut) expect(messageOf(imported, 'SHAPES_LEFT_OUT')).toMatch(leftOut);
        else expect(messageOf(imported, 'POLYGONS_AS_BOXES')).toMatch(/^1 shape that is no upright box/);
      },
      task,
    ),
  );

  test('CVAT for images: the classes are the labels in their order, without those of skeletons, tags and lines', () =>
    withImport(
      {
        ...images(flat),
        'annotations.xml': cvatOf(scenes, { labels: ['dog', 'cat &amp; &quot;co&quot;', 'cat'] }).replace(
          '</labels>',
          '<label><name>1</name><type>points</type><parent>body</parent></label><label><name>body</name><type>skeleton</type></label><label><name>night</name><type>tag</type></label></labels>',
        ),
      },
      (imported) => {
        expect(said(imported)).toBe('');
        expect(imported.summary().classes).toEqual(['dog', 'cat & "co"', 'cat']);
        expect(boxesOf(imported)).toEqual(expected);
      },
      task,
    ));

  const box = (attributes: string) => `<box ${attributes}/>`;
  test.each([
    [
      'a label that the task does not name',
      box('label="cta" xtl="1" ytl="1" xbr="9" ybr="9"'),
      'the image a.png: shape 1 (box) has the label "cta", which <meta> does not name',
    ],
    ['a box without a label', box('xtl="1" ytl="1" xbr="9" ybr="9"'), 'the image a.png: shape 1 (box) has no label'],
    ['a box without a coordinate', box('label="cat" xtl="1" ytl="" xbr="9" ybr="9"'), 'shape 1 (box) has ytl "", which is not a number'],
    [
      'a box with one bad coordinate',
      box('label="cat" xtl="1" ytl="1" xbr="9" ybr="9px"'),
      'shape 1 (box) has ybr "9px", which is not a number',
    ],
    [
      'a coordinate in hexadecimal',
      box('label="cat" xtl="0x1" ytl="1" xbr="9" ybr="9"'),
      'shape 1 (box) has xtl "0x1", which is not a number',
    ],
    ['a box that lacks a coordinate', box('label="cat" xtl="1" ytl="1" ybr="9"'), 'shape 1 (box) has no xbr'],
    ['a polygon without points', '<polygon label="cat"/>', 'shape 1 (polygon) has no points'],
    ...['30,5', '30°', 'abc', 'NaN', ''].map((rotation): [string, string, string] => [
      `the rotation "${rotation}"`,
      box(`label="cat" xtl="1" ytl="1" xbr="9" ybr="9" rotation="${rotation}"`),
      `shape 1 (box) has rotation "${rotation}", which is not a number`,
    ]),
    ...[
      ['1,1;30;30,10;1,10', '30'],
      ['1,1;10,1;10', '10'],
      ['1,1,1;2,2,2;9,9,9', '1,1,1'],
      ['1;2;3;4', '1'],
      ['1,1;9,x;9,9', '9,x'],
    ].map(([points, point]): [string, string, string] => [
      `a polygon with the points "${points}"`,
      `<polygon label="cat" points="${points}"/>`,
      `shape 1 (polygon) has the point "${point}", which is not two numbers, "x,y"`,
    ]),
    [
      'a turned box with a negative side',
      box('label="cat" xtl="4" ytl="12" xbr="24" ybr="9" rotation="45"'),
      'the image a.png: shape 1 (box) ends before it begins',
    ],
    ['edges the wrong way round', box('label="cat" xtl="9" ytl="1" xbr="1" ybr="9"'), 'shape 1 (box) ends before it begins'],
    [
      'a box out of the image',
      box('label="cat" xtl="1" ytl="1" xbr="40" ybr="9"'),
      'the image a.png: shape 1: the box reaches 12.0 pixels out',
    ],
  ])('CVAT for images: %s is refused by name, and can be left out', async (_what, shapes, says) => {
    await withImport(cvat(shapes), (imported) => expect(said(imported)).toContain(says), task);
    await withImport(cvat(shapes), ({ summary }) => expect(summary().leftOut).toMatchObject([{ file: 'images/a.png' }]), {
      ...task,
      onProblem: 'LEAVE_OUT',
      leftOutShareMax: 0.5,
    });
  });

  test.each<[string, Files]>([
    ['a label file whose ending is in capitals', { 'a.png': '', 'a.TXT': '' }],
    ['a label file whose name has other capitals', { 'A.PNG': '', 'a.txt': '' }],
    ['folders in capitals', { 'Images/a.png': '', 'Labels/a.txt': '' }],
    ['splits below folders in capitals', { 'Train/Images/a.png': '', 'Train/Labels/a.txt': '' }],
  ])('YOLO: %s is found', (_what, zip) =>
    withImport(
      Object.fromEntries([
        ...Object.keys(zip).map((name) => [name, /png$/i.test(name) ? (scenes[0]?.image as Buffer) : '0 .5 .5 .5 .5']),
        ['data.yaml', 'names: [cat]'],
      ]),
      (imported) => {
        expect(said(imported)).toBe('');
        expect(boxesOf(imported).map((line) => line.toLowerCase())).toEqual(['a: cat 7 7 14 14']);
      },
      { ...task, splitShares: { val: 0, test: 0 } },
    ),
  );

  test.each([
    ['beside the image, with its ending', 'images/a.png.txt'],
    ['in a folder of another name', 'txt/a.txt'],
  ])('YOLO: a label file that no image has is named, not passed over: %s', (_where, name) =>
    withImport(
      { ...yolo(''), [name]: '\n1 0.5 0.5 0.25 0.25\n' },
      (imported) => expect(said(imported)).toContain(`${name}: has no image of its name`),
      task,
    ),
  );

  test('YOLO: other texts beside the images are none of theirs', () =>
    withImport(
      { ...yolo('0 .5 .5 .5 .5'), 'README.txt': '1 dataset, 2 classes', 'mean.txt': '0.485 0.456 0.406', 'sizes.txt': '1 28 28 28 28' },
      (imported) => expect(said(imported)).toBe(''),
      task,
    ));

  test('VOC: edges the wrong way round are named, not left out', () =>
    withImport(
      {
        ...images(flat),
        ...Object.fromEntries(scenes.map((scene) => [`Annotations/${scene.name}.xml`, xmlOf(scene)])),
        'Annotations/a.xml': xmlOf({ ...(scenes[0] as Scene), boxes: [['cat', 12, 4, -10, 12]] }),
      },
      (imported) => expect(said(imported)).toContain('Annotations/a.xml: object 1: its xmax or ymax lies before xmin or ymin'),
      task,
    ));

  const object = (inside: string) => `<annotation><object><name>cat</name>${inside}</object></annotation>`;
  const rotated = (value: string) =>
    `<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox><attributes><attribute><name>rotation</name><value>${value}</value></attribute></attributes>`;
  test.each([
    [
      'one bad edge',
      '<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9 px</xmax><ymax>9</ymax></bndbox>',
      'has xmax in its bndbox "9 px", which is not',
    ],
    ['an edge that is missing', '<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax></bndbox>', 'has no ymax in its bndbox'],
    ['no shape', '', 'has no bndbox, robndbox or polygon'],
    ['a rotation that is no number', rotated('30,5'), 'has the attribute rotation "30,5", which is not a number'],
    [
      'a polygon without y2',
      '<polygon><x1>1</x1><y1>2</y1><x2>11</x2><x3>5</x3><y3>9</y3></polygon>',
      'has x2 "11" without y2 in its polygon',
    ],
    ['a polygon without its last y', '<polygon><x1>1</x1><y1>2</y1><x2>11</x2></polygon>', 'has x2 "11" without y2 in its polygon'],
    ['a polygon without x2', '<polygon><x1>1</x1><y1>2</y1><y2>11</y2></polygon>', 'has <y2> in its polygon, where an x is expected'],
    ['a point that is no number', '<polygon><x1>1</x1><y1>2</y1><x2>?</x2><y2>3</y2></polygon>', 'has x2 in its polygon "?", which is not'],
  ])('VOC: an object with %s is refused with its value', (_what, inside, reason) =>
    withImport(voc(object(inside)), (imported) => expect(said(imported)).toContain(`Annotations/a.xml: object 1: ${reason}`), task),
  );

  test.each([
    ['w', [14, 14, -20, 10], '-20'],
    ['h', [14, 14, 20, -10], '-10'],
  ])('VOC of roLabelImg: a negative %s is named, also where the turned box would hide it', (side, box, value) =>
    withImport(
      voc(roLabelImg('0.785', box as [number, number, number, number])),
      (imported) => expect(said(imported)).toContain(`Annotations/a.xml: object 1: has the negative ${side} ${value} in its robndbox`),
      task,
    ),
  );

  test('VOC: a <filename> that is another image of the zip is a problem that names both', async () => {
    const swapped = {
      ...voc(xmlOf(scenes[0] as Scene, 'd.png')),
      'Annotations/d.xml': xmlOf(scenes[2] as Scene, 'a.png'),
    };
    const reason = (own: string, other: string) =>
      `has the name of the image images/${own}.png, but its <filename> is that of images/${other}.png: correct or remove the <filename>`;
    await withImport(
      swapped,
      (imported) =>
        expect(imported.error?.details).toEqual([`Annotations/a.xml: ${reason('a', 'd')}`, `Annotations/d.xml: ${reason('d', 'a')}`]),
      task,
    );
    await withImport(
      swapped,
      (imported) => {
        expect(imported.summary().leftOut.map(({ file }) => file)).toEqual(['images/a.png', 'images/d.png']);
        expect(imported.warnings).not.toContain('IMAGES_NOT_LISTED');
      },
      { ...task, onProblem: 'LEAVE_OUT', leftOutShareMax: 0.5 },
    );
  });

  test('VOC: lists that decide the splits are not named as ignored', () =>
    withImport(
      {
        ...voc(xmlOf(scenes[0] as Scene)),
        'ImageSets/Main/train.txt': nameList('train', ({ name }) => name),
        'ImageSets/Main/val.txt': nameList('val', ({ name }) => name),
        'ImageSets/Main/trainval.txt': scenes.map(({ name }) => name).join('\n'),
        'project.xml': '<project/>',
      },
      (imported) =>
        expect(messageOf(imported, 'FILES_IGNORED')).toBe(
          '2 files that are no images were ignored: ImageSets/Main/trainval.txt, project.xml.',
        ),
      task,
    ));

  test.each<[string, Files, RegExp]>([
    [
      'a file of Pascal VOC with 100,000 elements',
      voc(object('<a/>'.repeat(100_000))),
      /a\.xml: has more than 100,000 elements in one <annotation>: remove those that describe no boxes/,
    ],
    [
      'an image of CVAT with 100,000 elements',
      cvat('<tag/>'.repeat(100_001)),
      /annotations\.xml: has more than 100,000 elements in one <image>: remove those/,
    ],
    ['elements nested 51 deep', voc(object('<a>'.repeat(50) + '</a>'.repeat(50))), /a\.xml: nests more than 50 elements: make it flatter/],
  ])('XML: %s is refused with the limit', (_what, zip, says) => withImport(zip, (imported) => expect(said(imported)).toMatch(says), task));

  const utf16 = (text: string) => Buffer.from(`\ufeff${text}`, 'utf16le');
  const one = { 'train/a.png': scenes[0]?.image ?? '' };
  test.each<[string, Files, RegExp]>([
    [
      'CVAT for video',
      {
        ...images(flat),
        'annotations.xml': '<annotations><version>1.1</version><track id="0" label="cat"><box frame="0"/></track></annotations>',
      },
      /annotations\.xml has the form "CVAT for video 1\.1", which is not read\. Export it as "CVAT for images 1\.1"/,
    ],
    [
      'CVAT for images that is cut off',
      { ...images(flat), 'annotations.xml': cvatOf(scenes).replace('</annotations>', '') },
      /annotations\.xml: is not whole: <annotations> is open/,
    ],
    [
      'CVAT for images with a tag of 20 MB',
      { ...images(flat), 'annotations.xml': `<annotations><image ${'a'.repeat(2e7)}/></annotations>` },
      /annotations\.xml: is not XML at character 13/,
    ],
    [
      'CVAT for images with a name of 20 MB',
      { ...images(flat), 'annotations.xml': `<annotations><image x="${'a '.repeat(1e7)}" name/></annotations>` },
      /annotations\.xml: image 1 has no name/,
    ],
    [
      'an export without its images',
      { 'annotations.xml': cvatOf(scenes) },
      /no images in the zip\. Export the dataset with its images: "Save images" in CVAT/,
    ],
    ['a COCO file without its images', { 'labels.json': cocoOf(scenes) }, /no images in the zip/],
    [
      'Roboflow: CSV of boxes',
      { ...one, 'train/_annotations.csv': 'filename,width\n' },
      /_annotations\.csv is a table of boxes.*Export the dataset as COCO, YOLO or Pascal VOC/,
    ],
    [
      'Roboflow: YOLOv4 PyTorch',
      { ...one, 'train/_annotations.txt': 'a.png 1,1,9,9,0', 'train/_classes.txt': 'cat' },
      /_annotations\.txt is a table of boxes.*Export/,
    ],
    [
      'Roboflow: CreateML',
      { ...one, 'train/_annotations.createml.json': '[{"image":"a.png"}]' },
      /createml\.json is in the form CreateML.*Export/,
    ],
    ['Roboflow: JSONL', { ...one, 'dataset/_annotations.train.jsonl': '{}' }, /jsonl is in the form JSONL.*Export/],
    [
      'Label Studio: YOLO without images',
      { 'classes.txt': 'cat', 'labels/a.txt': '0 .5 .5 .5 .5', 'notes.json': '{}' },
      /no images in the zip.*"YOLO with Images" in Label Studio/,
    ],
    [
      'LabelMe',
      { ...one, 'train/a.json': '{"version":"5.0","flags":{},"shapes":[],"imagePath":"a.png","imageData":null}' },
      /a\.json is in the form LabelMe.*Convert the dataset to COCO or YOLO/,
    ],
    [
      'FiftyOne: its own form',
      { 'data/a.png': 'x', 'metadata.json': '{}', 'samples.json': '{"samples":[]}' },
      /samples\.json is in the form of FiftyOne itself.*Export/,
    ],
    ['Roboflow: TFRecord', { 'train/cats.tfrecord': 'x', 'train/cats_label_map.pbtxt': 'x' }, /cats\.tfrecord is a TFRecord.*Export/],
    [
      'Roboflow: a Darknet export whose splits have other classes',
      { ...one, 'train/a.txt': '', 'train/_darknet.labels': 'cat', 'valid/_darknet.labels': 'dog' },
      /train\/_darknet\.labels and valid\/_darknet\.labels name different classes/,
    ],
    [
      'XML in UTF-16',
      { ...images(flat), ...Object.fromEntries(scenes.map((scene) => [`${scene.name}.xml`, utf16(xmlOf(scene))])) },
      /a\.xml: is not a text in UTF-8: save it in this encoding/,
    ],
    [
      'JSON in Latin-1',
      { ...images(flat), 'labels.json': Buffer.from(cocoOf(scenes).replace('"dog"', '"ca\xf1"'), 'latin1') },
      /labels\.json: categories\[1\] is not a text in UTF-8: save the file in this encoding/,
    ],
    ['JSON in UTF-16', { ...images(flat), 'labels.json': utf16(cocoOf(scenes)) }, /labels\.json: is in UTF-16: save it in UTF-8/],
    [
      'Label Studio: its own JSON',
      { ...images(flat), 'result.json': JSON.stringify([{ id: 1, annotations: [], data: { image: '/data/upload/a.png' } }]) },
      /result\.json is in the form of Label Studio itself.*Export the dataset as COCO, YOLO or Pascal VOC/,
    ],
    [
      'Label Studio: JSON-MIN',
      { ...images(flat), 'min.json': '[{"image":"/data/upload/a.png","id":1,"label":[],"annotator":1,"annotation_id":1}]' },
      /min\.json is in the form of Label Studio itself.*Export/,
    ],
    [
      'Label Studio: a file for each task',
      { ...images(flat), '1.json': '{"id":1,"annotations":[],"data":{"image":"/data/upload/a.png"}}' },
      /1\.json is in the form of Label Studio itself.*Export/,
    ],
    ...['-1', '2.5', '0x2', '1e0', 'abc', '[2]'].map((nc): [string, Record<string, string | Buffer>, RegExp] => [
      `YOLO: nc is ${nc}`,
      { ...one, 'data.yaml': `nc: ${nc}\nnames: [cat]` },
      /data\.yaml is not the description of a dataset: nc is not the number of classes in digits/,
    ]),
    [
      'YOLO: a line without a name',
      { ...one, 'train/a.txt': '', 'train/_darknet.labels': 'cat\n\ndog' },
      /_darknet\.labels: line 2 is empty: write the name of a class on each line/,
    ],
    [
      'a damaged JSON file beside the annotations',
      { ...images(flat), 'labels.json': cocoOf(scenes), 'notes.json': '{oops' },
      /several JSON files, labels\.json, notes\.json.*Keep the one that is meant/,
    ],
    ['a zip in the zip', { 'export.zip': 'PK' }, /export\.zip is an archive: unpack it/],
  ])('refused for what it is: %s', (_what, zip, says) => withImport(zip, (imported) => expect(said(imported)).toMatch(says), task));

  test('no follow-on errors: categories that cannot be read are told once, not for each annotation', () =>
    withImport(coco({ categories: [{ id: 1 }] }), (imported) => expect(imported.error?.details).toHaveLength(1), task));

  test('VOC: polygons, sizes of 0 and entities are read', () =>
    withImport(
      {
        ...images(flat),
        ...Object.fromEntries(scenes.map((scene) => [`Annotations/${scene.name}.xml`, `<?xml version="1.0"?>\n<!-- x -->${xmlOf(scene)}`])),
        'Annotations/a.xml':
          '<annotation><size><width>0</width><height>0</height></size><object><name>cat &amp; dog &#xe9;&#xd800;</name><polygon><x1>1</x1><y1>2</y1><x2>11</x2><y2>2</y2><x3>5</x3><y3>9</y3></polygon></object></annotation>',
      },
      (imported) => {
        expect(said(imported)).toBe('');
        expect(boxesOfA(imported)).toEqual(['a: cat & dog é&#xd800; 1 2 10 7']);
      },
      task,
    ));
});

describe('XML files of other forms, and of none', () => {
  const numbered = (n: number) => `i${String(n).padStart(2, '0')}`;
  /** Images i00, i01, …, each with a box, and an XML file of Pascal VOC beside each. */
  const numberedVoc = (count: number): Files =>
    Object.fromEntries(
      Array.from({ length: count }, (_, n) => ({ ...(scenes[n % 2] as Scene), name: numbered(n) })).flatMap((scene) => [
        [`a/${scene.name}.png`, scene.image],
        [`a/${scene.name}.xml`, xmlOf(scene)],
      ]),
    );
  const foreign = (count: number, text: string): Files => Object.fromEntries(Array.from({ length: count }, (_, n) => [`0/${n}.xml`, text]));

  test('a CVAT file behind many files of Pascal VOC is noticed, and both are named', () =>
    withImport(
      { ...numberedVoc(21), 'z.xml': cvatOf([{ ...(scenes[0] as Scene), name: numbered(0) }]) },
      (imported) =>
        expect(said(imported)).toBe(
          'The zip has a/i00.xml (the form Pascal VOC) and z.xml (the form CVAT): remove the one that is not meant.',
        ),
      task,
    ));

  test('a CVAT file and one of Pascal VOC are named each by its own name', () =>
    withImport(
      { ...images(flat), 'a.xml': xmlOf(scenes[0] as Scene), 'b.xml': cvatOf(scenes) },
      (imported) => expect(said(imported)).toContain('The zip has a.xml (the form Pascal VOC) and b.xml (the form CVAT)'),
      task,
    ));

  test.each<[string, Files]>([
    ['Pascal VOC', { ...images(flat), ...Object.fromEntries(scenes.map((scene) => [`Annotations/${scene.name}.xml`, xmlOf(scene)])) }],
    ['CVAT', { ...images(flat), 'annotations.xml': cvatOf(scenes) }],
  ])('%s is recognized behind many XML files that are unrelated or empty, and these are ignored by name', (_form, zip) =>
    withImport(
      { ...foreign(25, '<project/>'), '0/empty.xml': '', ...zip },
      (imported) => {
        expect(said(imported)).toBe('');
        expect(boxesOf(imported)).toEqual(expected);
        expect(messageOf(imported, 'FILES_IGNORED')).toMatch(/^26 files that are no images were ignored: 0\/0\.xml, /);
      },
      task,
    ),
  );

  test.each([
    ['is empty', '', 'is empty, but <annotation> is expected'],
    [
      'is a web page',
      '<!DOCTYPE html>\n<html><body>Not found<br></body></html>',
      'its root element is <html>, but <annotation> is expected',
    ],
    ['has another root', '<Annotation><object/></Annotation>', 'its root element is <Annotation>, but <annotation> is expected'],
    ['is a text', 'Not found', 'has no XML element, but <annotation> is expected'],
  ])('VOC: an XML file that %s does not drop its image silently', async (_what, text, reason) => {
    const zip = { ...numberedVoc(5), 'a/i01.xml': text, 'a/i03.xml': text };
    await withImport(zip, (imported) => expect(imported.error?.details).toEqual([`a/i01.xml: ${reason}`, `a/i03.xml: ${reason}`]), task);
    await withImport(
      zip,
      (imported) => {
        expect(imported.summary().items).toBe(3);
        expect(imported.summary().leftOut).toEqual(
          [1, 3].map((n) => ({ file: `a/${numbered(n)}.png`, reason: `a/${numbered(n)}.xml: ${reason}` })),
        );
        expect(imported.warnings).not.toContain('IMAGES_NOT_LISTED');
      },
      { ...task, onProblem: 'LEAVE_OUT', leftOutShareMax: 0.5 },
    );
  });

  test.each([
    ['empty', '', 'is empty'],
    ['a web page', '<html></html>', 'its root element is <html>'],
  ])('CVAT: an annotations.xml of a split that is %s is refused, whatever is left out', async (_what, text, reason) => {
    const zip = {
      ...images(({ split, name }) => `${split}/images/${name}.png`),
      'train/annotations.xml': cvatOf(of('train')),
      'val/annotations.xml': text,
    };
    for (const onProblem of ['REFUSE', 'LEAVE_OUT'] as const) {
      await withImport(
        zip,
        (imported) => expect(said(imported)).toContain(`val/annotations.xml: ${reason}, but <annotations> is expected: export it again`),
        { ...task, onProblem, leftOutShareMax: 0.9 },
      );
    }
  });

  test('CVAT: an empty XML file beside an image that no other names is a problem of this image', () =>
    withImport(
      { ...images(flat), 'annotations.xml': cvatOf(scenes.slice(1)), 'images/a.xml': '', 'images/d.xml': '' },
      (imported) => {
        expect(imported.error?.details).toEqual(['images/a.xml: is empty, but <annotations> is expected']);
      },
      task,
    ));
});

describe('splits', () => {
  test('`val` that is `train` is accepted with a loud warning, and val is taken from train', () =>
    withImport(
      yolo('0 .5 .5 .5 .5', { 'data.yaml': 'train: images\nval: images\nnames: [cat, dog]' }),
      (imported) => {
        expect(said(imported)).toBe('');
        expect(imported.summary().images).toEqual({ train: 1, val: 1, test: 0 });
        expect(messageOf(imported, 'VAL_IS_TRAIN')).toMatch(/judged by what it has learned/);
      },
      task,
    ));

  test('FiftyOne YOLOv5: an export of the split val alone is refused with what is missing', () =>
    withImport(
      {
        ...files(
          ({ name }) => `images/val/${name}.png`,
          ({ name }) => `labels/val/${name}.txt`,
        ),
        'dataset.yaml': 'names:\n  0: cat\n  1: dog\npath: /tmp/export\nval: ./images/val/\n',
      },
      (imported) => expect(said(imported)).toContain('no images to train on: all are in val. Add a split train, or name no splits'),
      task,
    ));

  test('an image in the lists of two splits is named', () =>
    withImport(
      yolo('0 .5 .5 .5 .5', {
        'data.yaml': 'train: train.txt\nval: val.txt\nnames: [cat, dog]',
        'train.txt': 'images/a.png\nimages/f.png',
        'val.txt': 'a.png',
      }),
      (imported) => expect(said(imported)).toMatch(/val\.txt: line 1: the image a\.png is in train too/),
      task,
    ));

  test('a path that two files end with is never guessed', () =>
    withImport(
      {
        'x/a.png': scenes[0]?.image ?? '',
        'y/a.png': scenes[1]?.image ?? '',
        'labels.json': cocoOf(scenes.slice(0, 1)),
      },
      (imported) => expect(said(imported)).toMatch(/the image a\.png can be x\/a\.png or y\/a\.png/),
      task,
    ));

  test.each<[string, (scene: Scene) => string]>([
    ['with their folder', ({ split, name }) => `${split}/${name}.png`],
    ['by name alone', ({ name }) => `${name}.png`],
  ])('COCO: one file for all leaves images in the splits of their folders, named %s', (_how, named) =>
    withImport(
      {
        ...images(({ split, name }) => `${split}/${name}.png`),
        'annotations.json': cocoOf(scenes, {
          images: scenes.map((s, i) => ({ id: i + 1, file_name: named(s), width: side, height: side })),
        }),
      },
      (imported) => {
        expect(said(imported)).toBe('');
        expect(imported.paths().sort()).toEqual(scenes.map(({ name, split }) => `${split} ${split}/${name}.png`).sort());
      },
      task,
    ),
  );

  const coco = (path: (scene: Scene) => string): Files => ({ ...images(path), 'annotations.json': cocoOf(scenes) });
  const voc = (path: (scene: Scene) => string): Files => ({
    ...images(path),
    ...Object.fromEntries(scenes.map((scene) => [path(scene).replace('.png', '.xml'), xmlOf(scene)])),
  });
  test.each([
    ['COCO', coco],
    ['Pascal VOC', voc],
  ])('%s: an image outside of the folders of splits is named', (_form, zipOf) =>
    withImport(
      zipOf(({ split, name }) => (name === 'e' ? 'e.png' : `${split}/${name}.png`)),
      (imported) => expect(said(imported)).toContain('e.png: lies in no folder of a split, as others do'),
      task,
    ),
  );

  test('the file of another split is not taken for one that is missing', () =>
    withImport(
      {
        'images/val/a.png': scenes[0]?.image ?? '',
        'images/train/b c.png': scenes[1]?.image ?? '',
        'instances_train.json': cocoOf(of('train')),
        'instances_val.json': cocoOf([]),
      },
      (imported) => expect(said(imported)).toMatch(/the image a\.png is not in the zip/),
      task,
    ));
});
