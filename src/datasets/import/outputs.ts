import { createHash, type Hash } from 'node:crypto';
import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { DatasetItem } from '../../jobs/specs.ts';
import { splits } from './layout.ts';

/** What the child leaves in its work folder for the server. */
export const files = {
  /** The images under their paths in the dataset. */
  extracted: 'extracted',
  /** One `DatasetItem` a line, sorted by n. */
  manifest: 'manifest.jsonl',
  /** One `ImportedItem` a line, sorted by n. */
  items: 'items.jsonl',
  /** The thumbnails one after the other, sorted by n. */
  thumbnails: 'thumbnails.bin',
  /** A `Summary`. */
  summary: 'summary.json',
} as const;

const count = z.int().min(0);

/** A manifest's line, and where the item's thumbnail is. */
export const ImportedItem = DatasetItem.extend({ thumbnailOffset: count, thumbnailBytes: z.int().min(1) });
export type ImportedItem = z.infer<typeof ImportedItem>;

export const Summary = z.object({
  contentHash: z.string().regex(/^[0-9a-f]{64}$/),
  classes: z.array(z.string().min(1).max(200)).min(2).max(10_000),
  items: z.int().min(1),
  /** Items by split, then by class, in the order of the classes. */
  bySplit: z.record(z.enum(splits), z.array(count)),
  /** Distinct contents that stand in more than one split. */
  duplicatesAcrossSplits: count,
  /** Of the images together. */
  sizeBytes: count,
});
export type Summary = z.infer<typeof Summary>;

/**
 * A dataset's identity: SHA-256 over one line `["<split>","<path>","<class>","<sha256 of the file>"]` for each item. They are added
 * sorted by split (train, val, test), then by path in the order of UTF-16 code units.
 */
export function createContentHash(classes: readonly string[]): { add(item: ContentItem): void; digest(): string } {
  const hash = createHash('sha256');
  return {
    add: ({ split, path, label, sha256 }) => void hash.update(`${JSON.stringify([split, path, classes[label], sha256])}\n`),
    digest: () => hash.digest('hex'),
  };
}

export type ContentItem = Pick<DatasetItem, 'split' | 'path' | 'label' | 'sha256'>;

export interface WrittenFile {
  name: string;
  sha256: string;
  sizeBytes: number;
}

/** A file of the work folder that is written from its beginning to its end, and hashed on the way. */
export interface Output {
  write(data: string | Buffer): void;
  /** Bytes so far. */
  readonly sizeBytes: number;
  end(): WrittenFile;
}

export function createOutput(workDir: string, name: string): Output {
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
