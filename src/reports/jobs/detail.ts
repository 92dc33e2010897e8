/** What an evaluation's file says of the classes, reduced to what a report can show. */
import { readFile } from 'node:fs/promises';
import type { z } from 'zod';
import type { ClassificationEvaluation, DetectionEvaluation } from '../../jobs/results.ts';
import { matrixMax } from '../../plots/matrix.ts';
import { background } from './findings.ts';

/** Pairs of classes that are confused, and classes whose precision is drawn. */
const pairsMax = 20;
const drawnMax = 5;

/** `counts[true][predicted]` of the classes that are confused most, or of all where these are few. */
export interface Confusion {
  classes: string[];
  counts: number[][];
  ofClasses: number;
}

export interface ClassificationDetail {
  task: 'CLASSIFICATION';
  perClass: { name: string; images: number; precision: number | null; recall: number | null }[];
  confusion: Confusion;
  /** By the images that the true class lost to the other one. */
  pairs: { is: string; takenFor: string; images: number; share: number }[];
}

export interface DetectionDetail {
  task: 'DETECTION';
  perClass: { name: string; objects: number; ap: number | null; ap50: number | null; best: { score: number; f1: number } | null }[];
  /** With the background; null in files of earlier versions of the program, which also have no `best`. */
  confusion: Confusion | null;
  /** Precision at the recalls 0, 0.01 … 1 at IoU 0.5: the mean over the classes, then the classes that are found worst. */
  precision: { mean: number[] | null; worst: { name: string; values: number[] }[] };
}

export type EvaluationDetail = ClassificationDetail | DetectionDetail;

type Classification = z.infer<typeof ClassificationEvaluation>;
type Detection = z.infer<typeof DetectionEvaluation>;
/** Earlier versions of the program stored less. */
type StoredDetection = Omit<Detection, 'perClass' | 'findings'> & {
  perClass: (Omit<Detection['perClass'][number], 'best'> & Partial<Pick<Detection['perClass'][number], 'best'>>)[];
  findings?: Pick<Detection['findings'], 'confusion'>;
};

/** The form of the file was checked when it was stored. Of 1,000 classes it has a million numbers. */
export async function readDetail(file: string): Promise<EvaluationDetail> {
  const stored = JSON.parse(await readFile(file, 'utf8')) as Classification | StoredDetection;
  return 'confusion' in stored ? classificationDetail(stored) : detectionDetail(stored);
}

/** `counts[true][found]` of the classes that are confused most, in their order; those of `kept` are always among them. */
function drawnConfusion(classes: string[], confusion: number[][], kept: number[]): Confusion {
  const errors = classes.map((_, n) =>
    classes.reduce((sum, _name, other) => (other === n ? sum : sum + (confusion[n]?.[other] ?? 0) + (confusion[other]?.[n] ?? 0)), 0),
  );
  const order = classes
    .map((_, n) => n)
    .filter((n) => !kept.includes(n))
    .sort((a, b) => (errors[b] as number) - (errors[a] as number) || a - b)
    .slice(0, matrixMax - kept.length);
  const drawn = [...order, ...kept].sort((a, b) => a - b);
  return {
    classes: drawn.map((n) => classes[n] as string),
    counts: drawn.map((is) => drawn.map((other) => confusion[is]?.[other] ?? 0)),
    ofClasses: classes.length,
  };
}

export function classificationDetail({
  classes,
  perClass,
  confusion,
}: Pick<Classification, 'classes' | 'perClass' | 'confusion'>): ClassificationDetail {
  const confused = confusion.flatMap((line, is) =>
    line.flatMap((images, other) => (images > 0 && other !== is ? { is, other, images } : [])),
  );
  return {
    task: 'CLASSIFICATION',
    perClass,
    confusion: drawnConfusion(classes, confusion, []),
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

export function detectionDetail({
  classes,
  perClass,
  findings,
}: Pick<StoredDetection, 'classes' | 'perClass' | 'findings'>): DetectionDetail {
  const drawable = perClass.flatMap(({ name, ap50, precision }) => (precision && ap50 !== null ? { name, ap50, values: precision } : []));
  const [first] = drawable;
  return {
    task: 'DETECTION',
    perClass: perClass.map(({ name, objects, ap, ap50, best }) => ({ name, objects, ap, ap50, best: best ?? null })),
    confusion: findings ? drawnConfusion([...classes, background], findings.confusion, [classes.length]) : null,
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
