/** What an evaluation's file says of the classes, reduced to what a report can show. */
import { readFile } from 'node:fs/promises';
import type { z } from 'zod';
import type { ClassificationEvaluation, DetectionEvaluation } from '../../jobs/results.ts';
import { matrixMax } from '../../plots/matrix.ts';

/** Pairs of classes that are confused, and classes whose precision is drawn. */
const pairsMax = 20;
const drawnMax = 5;

export interface ClassificationDetail {
  task: 'CLASSIFICATION';
  perClass: { name: string; images: number; precision: number | null; recall: number | null }[];
  /** `counts[true][predicted]` of the classes that are confused most, or of all where these are few. */
  confusion: { classes: string[]; counts: number[][]; ofClasses: number };
  /** By the images that the true class lost to the other one. */
  pairs: { is: string; takenFor: string; images: number; share: number }[];
}

export interface DetectionDetail {
  task: 'DETECTION';
  perClass: { name: string; objects: number; ap: number | null; ap50: number | null }[];
  /** Precision at the recalls 0, 0.01 … 1 at IoU 0.5: the mean over the classes, then the classes that are found worst. */
  precision: { mean: number[] | null; worst: { name: string; values: number[] }[] };
}

export type EvaluationDetail = ClassificationDetail | DetectionDetail;

type Stored = z.infer<typeof ClassificationEvaluation> | z.infer<typeof DetectionEvaluation>;

/** The form of the file was checked when it was stored. Of 1,000 classes it has a million numbers. */
export async function readDetail(file: string): Promise<EvaluationDetail> {
  const stored = JSON.parse(await readFile(file, 'utf8')) as Stored;
  return 'confusion' in stored ? classificationDetail(stored) : detectionDetail(stored);
}

export function classificationDetail({ classes, perClass, confusion }: z.infer<typeof ClassificationEvaluation>): ClassificationDetail {
  const confused = confusion.flatMap((line, is) =>
    line.flatMap((images, other) => (images > 0 && other !== is ? { is, other, images } : [])),
  );
  const errors = classes.map(() => 0);
  for (const { is, other, images } of confused) {
    errors[is] = (errors[is] ?? 0) + images;
    errors[other] = (errors[other] ?? 0) + images;
  }
  const drawn = classes
    .map((_, n) => n)
    .sort((a, b) => (errors[b] as number) - (errors[a] as number) || a - b)
    .slice(0, matrixMax)
    .sort((a, b) => a - b);
  return {
    task: 'CLASSIFICATION',
    perClass,
    confusion: {
      classes: drawn.map((n) => classes[n] as string),
      counts: drawn.map((is) => drawn.map((other) => confusion[is]?.[other] ?? 0)),
      ofClasses: classes.length,
    },
    pairs: confused
      .sort((a, b) => b.images - a.images || a.is - b.is || a.other - b.other)
      .slice(0, pairsMax)
      .map(({ is, other, images }) => ({
        is: classes[is] as string,
        takenFor: classes[other] as string,
        images,
        share: images / Math.max(1, perClass[is]?.images ?? 0),
      })),
  };
}

export function detectionDetail({ perClass }: z.infer<typeof DetectionEvaluation>): DetectionDetail {
  const drawable = perClass.flatMap(({ name, ap50, precision }) => (precision && ap50 !== null ? { name, ap50, values: precision } : []));
  const [first] = drawable;
  return {
    task: 'DETECTION',
    perClass: perClass.map(({ name, objects, ap, ap50 }) => ({ name, objects, ap, ap50 })),
    precision: {
      mean: first
        ? first.values.map((_, i) => drawable.reduce((sum, { values }) => sum + (values[i] as number), 0) / drawable.length)
        : null,
      worst: drawable
        .sort((a, b) => a.ap50 - b.ap50)
        .slice(0, drawnMax)
        .map(({ name, values }) => ({ name, values })),
    },
  };
}
