/**
 * `npm run bench:preprocess`: from a JPEG of 1920 × 1080 pixels to an input of 640 × 640, in TypeScript and in the native runtime, in one run
 * by turns. Prints the median times of the parts and the ratio of what comes after decoding. `-- --rounds 100` measures more often.
 */
import { createRequire } from 'node:module';
import { availableParallelism, cpus, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import sharp from 'sharp';
import { nativeAddon } from '../src/engine/libraries.ts';
import { decodeImage } from '../src/vision/decode.ts';
import { preprocess } from '../src/vision/preprocess.ts';
import { presetPreprocess } from '../src/vision/spec.ts';
import { type FillTensor, fillTensor } from '../src/vision/tensor.ts';
import { median } from './load.ts';

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '40' } } });
const goal = 3;
const [width, height] = [1920, 1080];
const spec = presetPreprocess(640, 'DETECTION');
const fills: Record<string, FillTensor> = { TypeScript: fillTensor, 'C++': createRequire(import.meta.url)(nativeAddon).fillTensor };

const busyBefore = (loadavg()[0] as number) > 0.5;
// Smooth, with noise on it, so that it is as large as a photograph.
const noise = await sharp({ create: { width, height, channels: 3, background: '#000', noise: { type: 'gaussian', mean: 128, sigma: 30 } } })
  .blur(2)
  .jpeg()
  .toBuffer();

const decodeMs: number[] = [];
const tensorMs: Record<string, number[]> = Object.fromEntries(Object.keys(fills).map((name) => [name, []]));
// The first rounds warm up.
for (let round = -5; round < Number(values.rounds); round += 1) {
  for (const [name, fill] of Object.entries(fills)) {
    const startedAt = performance.now();
    const { data } = await decodeImage(noise, width * height);
    const decodedAt = performance.now();
    preprocess(data, width, height, spec, 'FP32', fill);
    if (round < 0) continue;
    decodeMs.push(decodedAt - startedAt);
    tensorMs[name]?.push(performance.now() - decodedAt);
  }
}

const decoding = median(decodeMs);
const [inTypeScript, inAddon] = Object.values(tensorMs).map(median) as [number, number];
console.log(
  `${cpus()[0]?.model}, ${availableParallelism()} cores, ${values.rounds} rounds, a JPEG of ${Math.round(noise.length / 1000)} kB`,
);
if (busyBefore) console.log('The machine was busy with other work when this began: the ratios below say little.');
console.log(`decoding                     ${decoding.toFixed(1).padStart(6)} ms`);
console.log(`from pixels to a tensor      ${inTypeScript.toFixed(1).padStart(6)} ms in TypeScript, ${inAddon.toFixed(1)} ms in C++`);
console.log(`  ratio                      ${(inTypeScript / inAddon).toFixed(2).padStart(6)}  (goal ≥ ${goal})`);
console.log(`with decoding, ratio         ${((decoding + inTypeScript) / (decoding + inAddon)).toFixed(2).padStart(6)}`);
