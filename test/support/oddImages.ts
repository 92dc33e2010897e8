import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { files } from '../../src/datasets/import/outputs.ts';
import { trainerFolder, trainerPython } from '../../src/python.ts';
import { decodeImage } from '../../src/vision/decode.ts';
import { withFolder } from './server.ts';

const python = (...args: string[]): string =>
  execFileSync(trainerPython, ['-P', join(import.meta.dirname, 'odd_images.py'), ...args], {
    env: { PATH: process.env.PATH, PYTHONPATH: trainerFolder },
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  });

/** About 440 image files by name: formats × modes × orientations × depths, odd metadata, and damaged ones. */
export const oddImages = (): Promise<Map<string, Buffer>> =>
  withFolder(async (folder) => {
    const made = join(folder, 'made');
    mkdirSync(made);
    python('make', made);
    return new Map(
      readdirSync(made)
        .sort()
        .map((name) => [name, readFileSync(join(made, name))]),
    );
  });

/** Size and hash of an image's pixels as a reader decodes them: "61 × 47 <SHA-256>", or why it cannot. */
export type Decoded = string;

/** As the inference host decodes the bytes. */
export const byHost = (bytes: Buffer): Promise<Decoded> =>
  decodeImage(bytes, 25_000_000).then(
    ({ data, width, height }) => `${width} × ${height} ${createHash('sha256').update(data).digest('hex')}`,
    (error: Error) => error.message,
  );

/** As the trainer decodes each image of what an import has left in this folder, by path. */
export function byTrainer(zip: string, workDir: string): Map<string, Decoded> {
  const lines = python('read', zip, join(workDir, files.images), join(workDir, files.manifest)).trimEnd().split('\n');
  return new Map(
    lines.map((line) => {
      const { path, width, height, sha256, error } = JSON.parse(line);
      return [path, error ?? `${width} × ${height} ${sha256}`];
    }),
  );
}
