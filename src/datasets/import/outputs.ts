import { createHash, type Hash } from 'node:crypto';
import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { DatasetItem } from '../../jobs/manifest.ts';
import type { Task } from '../../vision/spec.ts';
import { splits } from './layout.ts';

/** What the child leaves in its work folder for the server. */
export const files = {
  /** Where each image is, and those that were converted: `imageTable.ts`. */
  images: 'images.bin',
  /** One `DatasetItem` a line, sorted by n. */
  manifest: 'manifest.jsonl',
  /** One `ImportedItem` a line, sorted by n. */
  items: 'items.jsonl',
  /** The thumbnails one after the other, sorted by n. */
  thumbnails: 'thumbnails.bin',
  /** A `DatasetSummary`. */
  summary: 'summary.json',
} as const;

const count = z.int().min(0);

/** A manifest's line, and where the item's thumbnail is. */
export const ImportedItem = DatasetItem.omit({ v: true }).extend({ thumbnailOffset: count, thumbnailBytes: z.int().min(1) });
export type ImportedItem = z.infer<typeof ImportedItem>;

export const DatasetSummary = z.object({
  contentHash: z.string().regex(/^[0-9a-f]{64}$/),
  classes: z.array(z.string().min(1).max(200)).min(1).max(10_000),
  items: z.int().min(1),
  /** Images by split. */
  images: z.record(z.enum(splits), count),
  /** Images by split, then by class, in the order of the classes; one that shows several classes counts for each. */
  bySplit: z.record(z.enum(splits), z.array(count)),
  /** DETECTION: boxes by split, then by class, without crowds; null for CLASSIFICATION. */
  boxesBySplit: z.record(z.enum(splits), z.array(count)).nullable(),
  /** Distinct contents that stand in more than one split. */
  duplicatesAcrossSplits: count,
  /** Of the images together. */
  sizeBytes: count,
  /** Images of the zip that were left out, sorted by name. */
  leftOut: z.array(z.object({ file: z.string(), reason: z.string() })),
});
export type DatasetSummary = z.infer<typeof DatasetSummary>;

/**
 * A dataset's identity: SHA-256 over one line for each item, sorted by split (train, val, test), then by path in the order of UTF-16
 * code units. For CLASSIFICATION it is `["<split>","<path>","<class>","<sha256 of the file>"]`. For DETECTION the boxes stand in the
 * place of the class, `[["<class>",x,y,width,height],…]`, with `"crowd"` behind a crowd's, and a first line has the classes, which need not
 * all have boxes. Where images were left out, a last line has their names in the zip.
 */
export function createContentHash(
  task: Task,
  classes: readonly string[],
): { add(item: ContentItem): void; digest(leftOut: readonly { file: string }[]): string } {
  const hash = createHash('sha256');
  const line = (value: unknown) => void hash.update(`${JSON.stringify(value)}\n`);
  if (task === 'DETECTION') line(classes);
  return {
    add({ split, path, label, boxes, sha256 }) {
      const labels =
        boxes?.map((box) => [classes[box.label], box.x, box.y, box.width, box.height, ...(box.crowd ? ['crowd'] : [])]) ??
        classes[label ?? -1];
      line([split, path, labels, sha256]);
    },
    digest(leftOut) {
      if (leftOut.length > 0) line({ leftOut: leftOut.map(({ file }) => file) });
      return hash.digest('hex');
    },
  };
}

export type ContentItem = Pick<DatasetItem, 'split' | 'path' | 'label' | 'boxes' | 'sha256'>;

/** The classes that an image shows, each once. */
export const classesOf = ({ label, boxes }: Pick<DatasetItem, 'label' | 'boxes'>): number[] =>
  boxes ? [...new Set(boxes.map((box) => box.label))] : [label as number];

/** The first two items of each content that stands in more than one split. */
export function* duplicatesAcrossSplits<T extends { split: DatasetItem['split']; sha256: string }>(items: Iterable<T>): Generator<[T, T]> {
  const first = new Map<string, T>();
  const told = new Set<string>();
  for (const item of items) {
    const other = first.get(item.sha256);
    if (!other) first.set(item.sha256, item);
    else if (other.split !== item.split && !told.has(item.sha256)) {
      told.add(item.sha256);
      yield [other, item];
    }
  }
}

export interface WrittenFile {
  name: string;
  sha256: string;
  sizeBytes: number;
}

/** A file of the work folder that is written from its beginning to its end, and hashed on the way. */
export interface OutputFile {
  write(data: string | Buffer): void;
  /** Bytes so far. */
  readonly sizeBytes: number;
  end(): WrittenFile;
}

export function createOutputFile(workDir: string, name: string): OutputFile {
  const fd = openSync(join(workDir, name), 'w');
  const hash: Hash = createHash('sha256');
  let pending: Buffer[] = [];
  let pendingBytes = 0;
  let sizeBytes = 0;
  const flush = () => {
    const data = Buffer.concat(pending);
    for (let written = 0; written < data.length; ) written += writeSync(fd, data, written);
    pending = [];
    pendingBytes = 0;
  };
  return {
    write(data) {
      const bytes = Buffer.from(data);
      hash.update(bytes);
      pending.push(bytes);
      pendingBytes += bytes.length;
      sizeBytes += bytes.length;
      if (pendingBytes > 2 ** 18) flush();
    },
    get sizeBytes() {
      return sizeBytes;
    },
    end() {
      flush();
      closeSync(fd);
      return { name, sha256: hash.digest('hex'), sizeBytes };
    },
  };
}
