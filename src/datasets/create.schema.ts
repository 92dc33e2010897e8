import { builder, enumValues, type PayloadFields, PayloadType, payload } from '../graphql/builder.ts';
import { TaskType } from '../graphql/enums.ts';
import type { NameEncoding } from '../jobs/specs.ts';
import { type CreatedDatasetVersion, createDataset } from './create.ts';
import { DatasetType, DatasetVersionType } from './schema.ts';

const NameEncodingType = builder.enumType('NameEncoding', {
  description: 'How the names in a zip are written that it does not mark as UTF-8.',
  values: enumValues<NameEncoding>({
    UTF_8: 'Unicode: macOS, Linux.',
    CP437: 'Code page 437, the United States’ in DOS: what the zip format says of such names.',
    CP850: 'Code page 850, Western Europe’s in DOS: Windows before it marked names as UTF-8.',
    CP866: 'Code page 866, Cyrillic in DOS: Windows in Russian.',
    GB18030: 'Chinese, simplified: Windows in Chinese. GBK and GB2312 are parts of it.',
    BIG5: 'Chinese, traditional.',
    SHIFT_JIS: 'Japanese: Windows in Japanese.',
    EUC_KR: 'Korean: Windows in Korean.',
    WINDOWS_1250: 'Windows, Central Europe.',
    WINDOWS_1251: 'Windows, Cyrillic.',
    WINDOWS_1252: 'Windows, Western Europe.',
  }),
});

const OnProblemType = builder.enumType('OnProblem', {
  description: 'What an image that is damaged, or whose labels are, does to the import of its dataset.',
  values: enumValues<'REFUSE' | 'LEAVE_OUT'>({
    REFUSE: 'The zip is refused, and `job.failure` names the first 50 such images.',
    LEAVE_OUT: 'The image is left out. `DatasetVersion.leftOut` counts and names what was left out, and the content hash depends on it.',
  }),
});

builder.relayMutationField(
  'createDataset',
  {
    inputFields: (t) => ({
      name: t.string({
        required: true,
        description: '1 to 100 letters (of any script), digits or . _ - : an existing dataset gets its next version.',
      }),
      task: t.field({ type: TaskType, required: true, description: 'What its labels are for.' }),
      uploadId: t.id({
        required: true,
        description:
          'A complete upload of a zip with JPEG, PNG, WebP, TIFF or BMP images. CLASSIFICATION: `<class>/<image>`, or ' +
          '`<split>/<class>/<image>` with the splits train, val and test. DETECTION: YOLO (data.yaml, obj.names or classes.txt with text ' +
          'files), COCO (JSON with images, annotations, categories; crowds become boxes that are ignored), Pascal VOC or CVAT for images 1.1 (XML). ' +
          'Boxes belong to the upright image, as it is when its EXIF orientation is applied.',
      }),
      sha256: t.string({ required: true, description: 'SHA-256 of the zip in hexadecimal, as the client computed it.' }),
      nameEncoding: t.field({
        type: NameEncodingType,
        description:
          'How names in the zip are written that it does not mark as UTF-8. Without it they are UTF-8 when all of them can be, otherwise ' +
          'CP437; a warning of the job shows them as they were read.',
      }),
      onProblem: t.field({
        type: OnProblemType,
        required: true,
        defaultValue: 'REFUSE',
        description: 'What one image that cannot be used does to the whole zip.',
      }),
      leftOutShareMax: t.float({
        required: true,
        defaultValue: 0.05,
        description: 'LEAVE_OUT: at most this share of the images may be left out; beyond it the zip is refused.',
      }),
      splitSeed: t.field({
        type: 'SafeInt',
        required: true,
        defaultValue: 0,
        description: 'Divides images that have no split folders. The same seed divides the same images in the same way.',
      }),
      valShare: t.float({
        required: true,
        defaultValue: 0.2,
        description:
          'Share of each class (DETECTION: of the images) that goes to VAL where the zip does not say: of all, or of TRAIN when only VAL is missing.',
      }),
      testShare: t.float({
        required: true,
        defaultValue: 0,
        description: 'Share of each class that goes to TEST when the zip has no split folders.',
      }),
      notes: t.string({ description: 'Notes of a new dataset; `updateDataset` changes those of an existing one.' }),
      idempotencyKey: t.string({ description: 'The same key gives the same version, however often the mutation is sent.' }),
    }),
  },
  {
    description:
      'Makes a dataset version of an uploaded zip: its job checks every image. If the dataset has a version with the same content, ' +
      'the job’s result names that one, and no new one is left.',
    authScopes: { can: 'UPLOAD' },
    resolve: (_root, { input }, context) => payload(() => createDataset(context, context.actor, input)),
  },
  {
    interfaces: [PayloadType],
    outputFields: (t: PayloadFields<CreatedDatasetVersion>) => ({
      dataset: t.field({ type: DatasetType, nullable: true, description: 'The dataset.', resolve: (p) => p.result?.dataset }),
      datasetVersion: t.field({ type: DatasetVersionType, nullable: true, description: 'The version.', resolve: (p) => p.result?.version }),
    }),
  },
);
