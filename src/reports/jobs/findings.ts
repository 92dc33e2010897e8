/** What a report shows of an evaluation's findings: the first of each list, with the images by their names. */
import { closeSync, openSync, readSync } from 'node:fs';
import { listItemsAt } from '../../datasets/datasets.ts';
import { findModelVersionEver } from '../../models/models.ts';
import { blobPath, findArtifact, type StorageServices } from '../../storage/blobs.ts';
import { type Findings, findFindings } from '../../training/evaluations.ts';
import type { EvaluationRow } from '../../training/tables.ts';

/** Pictures of each list, confused pairs with pictures, and pictures of such a pair. */
const shownMax = 12;
const pairsMax = 4;
const examplesMax = 3;

/** What is no object: the last row and column of a detector's confusion matrix. */
export const background = 'background';

/** `path` is null where the dataset version was deleted. */
interface ImageFacts {
  n: number;
  path: string | null;
}

export interface ClassifiedFacts extends ImageFacts {
  class: string;
  predictedClass: string;
  probability: number;
  ownProbability: number;
}

export interface MistakeFacts {
  kind: 'MISSED' | 'FALSE';
  class: string;
  score: number | null;
  x: number;
  y: number;
  width: number;
  height: number;
}

export interface DetectedFacts extends ImageFacts {
  missed: number;
  false: number;
  boxes: MistakeFacts[];
}

type Detection = Extract<Findings, { best: unknown }>;

/** A null class is the background. */
interface PairFacts {
  class: string | null;
  predictedClass: string | null;
  count: number;
  examples: ImageFacts[];
}

export type FindingFacts = { confused: PairFacts[] } & (
  | { task: 'CLASSIFICATION'; worst: (ClassifiedFacts & { loss: number })[]; labelErrors: { count: number; images: ClassifiedFacts[] } }
  | ({ task: 'DETECTION'; worst: DetectedFacts[] } & Pick<Detection, 'iou' | 'best' | 'sizes'>)
);

/** Where the thumbnails of the images lie. No facts: a report says what was found, and shows it where it is still there. */
export interface PictureSource {
  file: string;
  parts: { n: number; offset: number; sizeBytes: number; width: number; height: number }[];
}

/** What is shown of an evaluation; nothing of one that an earlier version of the program has made. */
export function findingSource(
  { config, db }: StorageServices,
  { id, modelVersionId, datasetVersionId }: EvaluationRow,
): { findings: FindingFacts; pictures: PictureSource | null } | null {
  const found = findFindings(db, id);
  if (!found) return null;
  const classes = findModelVersionEver(db, modelVersionId)?.labelsJson ?? [];
  const nameOf = (index: number) => classes[index] ?? `class ${index}`;
  const shown = [
    ...found.worst.slice(0, shownMax).map(({ n }) => n),
    ...('labelErrors' in found ? found.labelErrors.images.slice(0, shownMax).map(({ n }) => n) : []),
    ...found.confused.slice(0, pairsMax).flatMap(({ examples }) => examples.slice(0, examplesMax)),
  ];
  const items = new Map(listItemsAt(db, datasetVersionId, [...new Set(shown)]).map((item) => [item.n, item]));
  const image = (n: number): ImageFacts => ({ n, path: items.get(n)?.path ?? null });
  const confused = found.confused.map(({ label, predicted, count, examples }, i) => ({
    class: label === null ? null : nameOf(label),
    predictedClass: predicted === null ? null : nameOf(predicted),
    count,
    examples: i < pairsMax ? examples.slice(0, examplesMax).map(image) : [],
  }));
  const thumbnails = findArtifact(db, 'DATASET_VERSION', datasetVersionId, 'THUMBNAILS');
  return {
    findings: { confused, ...('labelErrors' in found ? classificationFacts(found, image, nameOf) : detectionFacts(found, image, nameOf)) },
    pictures: thumbnails
      ? {
          file: blobPath(config.dataDir, thumbnails.sha256),
          parts: [...items.values()].map(({ n, thumbnailOffset: offset, thumbnailBytes: sizeBytes, width, height }) => ({
            n,
            offset,
            sizeBytes,
            width,
            height,
          })),
        }
      : null,
  };
}

type Named = [image: (n: number) => ImageFacts, nameOf: (index: number) => string];

function classificationFacts({ worst, labelErrors }: Exclude<Findings, Detection>, ...[image, nameOf]: Named) {
  const classified = ({ n, label, predicted, probability, ownProbability }: (typeof labelErrors.images)[number]): ClassifiedFacts => ({
    ...image(n),
    class: nameOf(label),
    predictedClass: nameOf(predicted),
    probability,
    ownProbability,
  });
  return {
    task: 'CLASSIFICATION' as const,
    worst: worst.slice(0, shownMax).map((one) => ({ ...classified(one), loss: one.loss })),
    labelErrors: { count: labelErrors.count, images: labelErrors.images.slice(0, shownMax).map(classified) },
  };
}

function detectionFacts({ iou, best, sizes, worst }: Detection, ...[image, nameOf]: Named) {
  return {
    task: 'DETECTION' as const,
    iou,
    best,
    sizes,
    worst: worst.slice(0, shownMax).map((one) => ({
      ...image(one.n),
      missed: one.missed,
      false: one.false,
      boxes: one.boxes.map(({ label, ...box }) => ({ ...box, class: nameOf(label) })),
    })),
  };
}

/** A thumbnail as a `data:` address, with the size of its image. */
export interface Thumbnail {
  address: string;
  width: number;
  height: number;
}

/** In the thread that writes the report. */
export function readThumbnails(source: PictureSource | null): Map<number, Thumbnail> {
  if (!source || source.parts.length === 0) return new Map();
  const file = openSync(source.file, 'r');
  try {
    return new Map(
      source.parts.map(({ n, offset, sizeBytes, width, height }) => {
        const bytes = Buffer.alloc(sizeBytes);
        readSync(file, bytes, 0, sizeBytes, offset);
        return [n, { address: `data:image/webp;base64,${bytes.toString('base64')}`, width, height }];
      }),
    );
  } finally {
    closeSync(file);
  }
}
