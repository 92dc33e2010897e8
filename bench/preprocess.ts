/**
 * `npm run bench:preprocess`: TypeScript and the native runtime beside each other, in one run by turns. Makes inputs of 640 × 640 from a JPEG of
 * 1920 × 1080 pixels, and detections from the outputs of a detector (8,400 places × 80 classes). Prints the median times of the parts and their
 * ratios. `-- --rounds 100` measures more often.
 */
import { availableParallelism, cpus, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import sharp from 'sharp';
import { seededBytes } from '../src/benchmark/inputs.ts';
import { decodeImage } from '../src/vision/decode.ts';
import { detectionDefinition, detectionSteps, findDetections, type ImageOutput, readDetectorOutputs } from '../src/vision/detections.ts';
import { fastest } from '../src/vision/fastest.ts';
import { preprocess } from '../src/vision/preprocess.ts';
import { presetPreprocess } from '../src/vision/spec.ts';
import { type FillTensor, fillTensor } from '../src/vision/tensor.ts';
import { median } from './load.ts';

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '40' } } });
const goal = 3;
const [width, height] = [1920, 1080];
const spec = presetPreprocess(640, 'DETECTION');
const fills: Record<string, FillTensor> = { TypeScript: fillTensor, 'C++': fastest({ fillTensor }).fillTensor };

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

// ------------------------------------------------------------------------------------------------------------- detections

const [places, classes] = [8400, 80];
const steps = { TypeScript: detectionSteps, 'C++': fastest(detectionSteps) };

/** Of YOLOv8's form: boxes all over the image, and scores of which `share` reach 0.25 and the others nothing. */
function outputOf(share: number): Float32Array {
  const bytes = seededBytes('detections', 4 * (4 + classes) * places);
  return Float32Array.from({ length: (4 + classes) * places }, (_, i) => {
    const random = bytes.readUInt32LE(4 * i) / 2 ** 32;
    const row = Math.floor(i / places);
    if (row < 2) return 640 * random;
    if (row < 4) return 20 + 200 * random;
    return random < share ? 0.25 + 0.7 * (random / share) : 0.0005 * random;
  });
}

const medianMs = (times: number[]): string => median(times).toFixed(2).padStart(6);
console.log(`\n${places} places × ${classes} classes`);
for (const [what, share] of [
  ['100 candidates', 100 / (places * classes)],
  ['10,000 candidates', 10_000 / (places * classes)],
  ['every score a candidate', 1],
] as const) {
  const data = outputOf(share);
  const readMs: number[] = [];
  const findMs = { TypeScript: [] as number[], 'C++': [] as number[] };
  for (let round = -5; round < Number(values.rounds); round += 1) {
    const readAt = performance.now();
    const [output] = readDetectorOutputs([{ shape: [1, 4 + classes, places], data }], 'CENTRES_FIRST', classes) as [ImageOutput];
    if (round >= 0) readMs.push(performance.now() - readAt);
    for (const name of ['TypeScript', 'C++'] as const) {
      const startedAt = performance.now();
      findDetections(output, classes, detectionDefinition, steps[name]);
      if (round >= 0) findMs[name].push(performance.now() - startedAt);
    }
  }
  console.log(`${what}: boxes and scores by place${medianMs(readMs)} ms`);
  console.log(
    `  best scores, suppression   ${medianMs(findMs.TypeScript)} ms in TypeScript, ${median(findMs['C++']).toFixed(2)} ms in C++`,
  );
  console.log(`  ratio                      ${(median(findMs.TypeScript) / median(findMs['C++'])).toFixed(2).padStart(6)}`);
}
