import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { describe, expect, test } from 'vitest';
import { type ModelConfig, parseHostConfig } from '../src/inference/config.ts';
import type { RunningHost } from '../src/inference/host.ts';
import { preprocess } from '../src/vision/preprocess.ts';
import { inGrey, presetPreprocess } from '../src/vision/spec.ts';
import { photo } from './support/images.ts';
import { call, inferJson, metric, withHost, withModelFiles } from './support/inference.ts';

const fixtures = join(import.meta.dirname, 'fixtures', 'preprocess');
let url = '';
let host: RunningHost;
const labels = ['red', 'green', 'blue'];
const spec = presetPreprocess(32);
/** Levels as 0 to 1, and as they are. */
const shares = { ...spec, mean: [0, 0, 0], std: [1, 1, 1] };
const levels = { ...shares, std: [1 / 255, 1 / 255, 1 / 255] };
/** Of `classifier` in inference_models.py: what its input is made of, or leaves open. */
const kinds = ['halves', 'doubles', 'bytes', 'open', 'square'];
const detector = { task: 'DETECTION', outputLayout: 'BOXES_SCORES', deadlineMs: 30_000 };
const letterbox = presetPreprocess(64, 'DETECTION');
/** What a detector found in the image of a fixture; `docs/preprocessing.md` tells who made them. */
const found: { name: string; layout: string; width: number; height: number; side: number; output: string; detections: Found[] }[] =
  JSON.parse(readFileSync(join(fixtures, '..', 'detections', 'cases.json'), 'utf8')).cases;
interface Found {
  label: number;
  score: number;
  box: [left: number, top: number, right: number, bottom: number];
}
const fixtureModel = (output: string) => `fixture-${output.replace('.f32', '')}`;
withHost(
  {
    models: [
      { name: 'brightness', labels, preprocess: spec, maxImagePixels: 1_000_000, deadlineMs: 30_000, lineageHash: 'd'.repeat(64) },
      { name: 'probabilities', model: 'brightness', preprocess: shares, scores: 'PROBABILITIES', deadlineMs: 30_000 },
      { name: 'raw', model: 'brightness', deadlineMs: 30_000 },
      { name: 'logarithm', preprocess: shares, deadlineMs: 30_000 },
      { name: 'grey', preprocess: inGrey(shares), deadlineMs: 30_000 },
      ...kinds.map((kind) => ({ name: `classifier-${kind}`, preprocess: levels, deadlineMs: 30_000 })),
      { name: 'rectangle', ...detector, labels: ['red', 'green'], preprocess: letterbox },
      { name: 'few', model: 'rectangle', ...detector, preprocess: letterbox, boxesMax: 1 },
      ...found.map(({ output, side, layout }) => ({
        name: fixtureModel(output),
        ...detector,
        // Its shape says that of the others where the classes have names.
        outputLayout: layout === 'CENTRES_FIRST' ? undefined : layout,
        preprocess: presetPreprocess(side, 'DETECTION'),
      })),
    ],
  },
  (started) => {
    host = started;
    url = host.url;
  },
);
/** Loads a model of `inference_models.py` beside those that serve. */
async function load(name: string, config: object): Promise<void> {
  const { folder, settings } = await withModelFiles({ models: [{ name, deadlineMs: 30_000, ...config }] });
  try {
    await host.load('tried', parseHostConfig(settings, folder, 8).models[0] as ModelConfig);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const predict = (model: string, body: Uint8Array | string, query = '') =>
  call(`${url}/v2/models/${model}/predict${query}`, { method: 'POST', body });
const flat = (background: string) => sharp({ create: { width: 50, height: 40, channels: 3, background } });

describe('predict', () => {
  test.each(['jpeg', 'png', 'webp'] as const)('%s in, classes out: named, in falling order, adding up to 1', async (format) => {
    const { status, json, headers } = await predict('brightness', await flat('#10e020').toFormat(format).toBuffer());
    expect(status).toBe(200);
    expect(json).toMatchObject({ model_name: 'brightness', model_version: '1' });
    expect(json.classes.map(({ label }: { label: string }) => label)).toEqual(['green', 'blue', 'red']);
    expect(json.classes[0].index).toBe(1);
    const sum = json.classes.reduce((all: number, { probability }: { probability: number }) => all + probability, 0);
    expect(sum).toBeCloseTo(1, 6);
    expect(headers['whetstone-lineage-hash']).toBe('d'.repeat(64));
    expect(headers['server-timing']).toContain('preprocessing;dur=');
  });

  test('it is what infer answers for the tensor of the same image', async () => {
    const image = await photo(200, 120).png().toBuffer();
    const { data, info } = await sharp(image).raw().toBuffer({ resolveWithObject: true });
    const tensor = preprocess(data, info.width, info.height, spec);
    const raw = await inferJson(url, 'raw', { inputs: [{ name: 'image', datatype: 'FP32', shape: [1, 3, 32, 32], data: [...tensor] }] });
    const logits: number[] = raw.json.outputs[0].data;
    const sum = logits.reduce((all, logit) => all + Math.exp(logit), 0);
    const { json } = await predict('brightness', image);
    for (const { index, probability } of json.classes) expect(probability).toBeCloseTo(Math.exp(logits[index] as number) / sum, 5);
  });

  test('a model of one channel sees the luma of a picture in colors', async () => {
    const { json } = await predict('grey', await flat('#10e020').png().toBuffer());
    // 0.299 · 16 + 0.587 · 224 + 0.114 · 32
    const logit = (4 * 140) / 255;
    expect(json.classes[0]).toEqual({ label: null, index: 0, probability: expect.closeTo(1 / (1 + Math.exp(-2 * logit)), 5) });
  });

  test('as many classes as asked for; no label where there is none; probabilities as they are', async () => {
    const { json } = await predict('probabilities', await flat('#80ff00').png().toBuffer(), '?top=1');
    expect(json.classes).toEqual([{ label: null, index: 1, probability: expect.closeTo(1, 4) }]);
  });

  test.each<[string, string, () => Promise<Uint8Array | string>, number, string]>([
    ['what is no image', 'brightness', async () => 'hello', 400, 'not a JPEG, PNG, WebP, TIFF or BMP'],
    ['an empty body', 'brightness', async () => '', 400, 'The body is empty.'],
    ['another format', 'brightness', () => flat('#000').gif().toBuffer(), 400, 'The body is a GIF: convert it to PNG or JPEG.'],
    ['a web page', 'brightness', async () => '<html>', 400, 'The body is a web page (HTML).'],
    ['half an image', 'brightness', async () => (await photo(200, 200).png().toBuffer()).subarray(0, 500), 400, 'truncated or damaged'],
    ['more pixels than allowed', 'brightness', () => flat('#000').resize(1001, 1000).png().toBuffer(), 413, '1001 × 1000 pixels'],
    ['a side that is too long', 'brightness', () => flat('#000').resize(30_001, 1).png().toBuffer(), 413, 'a side can have 30000'],
    ['an animation', 'brightness', () => photo(20, 20, 3).webp().toBuffer(), 400, 'animation'],
    ['a model without preprocessing', 'raw', () => flat('#000').png().toBuffer(), 422, 'send its tensors to /infer'],
    ['what the model has no number for', 'logarithm', () => flat('#000').png().toBuffer(), 500, 'not made of numbers'],
  ])('%s is refused', async (_, model, image, status, says) => {
    const got = await predict(model, await image());
    expect([got.status, got.json]).toEqual([status, { error: expect.stringContaining(says) }]);
  });

  test('a form of curl -F is refused with the command that sends the image as it is', async () => {
    const answer = await fetch(`${url}/v2/models/brightness/predict`, { method: 'POST', body: new FormData() });
    expect([answer.status, await answer.json()]).toEqual([415, { error: expect.stringContaining('curl --data-binary @image.jpg') }]);
  });

  test('an image that `curl -d` has changed is refused with the option that does not', async () => {
    const headers = { 'content-type': 'application/x-www-form-urlencoded' };
    const body = (await flat('#123456').png().toBuffer()).filter((byte) => byte !== 10 && byte !== 13);
    const answer = await fetch(`${url}/v2/models/brightness/predict`, { method: 'POST', body, headers });
    expect([answer.status, await answer.json()]).toEqual([400, { error: expect.stringContaining('use `--data-binary @image.jpg`') }]);
  });

  test('outputs that cannot be read are a failure of the model', async () => {
    const failures = () => metric(url, 'whetstone_inference_requests_total{model="logarithm",version="1",outcome="failed"}');
    const before = await failures();
    expect((await predict('logarithm', await flat('#000').png().toBuffer())).status).toBe(500);
    expect(await failures()).toBe(before + 1);
  });

  test.each([
    ['?top=0', 'top is "0". At least one class'],
    ['?top=x', 'top is "x". A whole number'],
    ['?top=1.5', 'top is "1.5". A whole number'],
    ['?top=', 'top is "". A whole number'],
    ['?top=0x10', 'top is "0x10". A whole number'],
    ['?score=2', 'score is "2". A score is from 0 to 1'],
    ['?score=-0.1', 'score is "-0.1". A score is from 0 to 1'],
    ['?score=x', 'score is "x". A score is a number'],
    // Read as 0, it would let every detection through.
    ['?score=', 'score is "". A score is a number'],
    ['?score', 'score is "". A score is a number'],
    ['?score=%20', 'score is " ". A score is a number'],
    ['?score=NaN', 'score is "NaN". A score is a number'],
    ['?score=0,5', 'score is "0,5". A score is a number'],
    ['?score=0.1&score=0.9', 'score is there twice'],
    ['?scroe=0.5', 'no parameter scroe. Did you mean score? There are: top, score'],
    ['?Score=0.5', 'no parameter Score. Did you mean score?'],
    ['?threshold=0.5&top=1', 'no parameter threshold. There are: top, score'],
    ['?__proto__=1', 'no parameter __proto__'],
  ])('%s is refused, and the parameter named', async (query, says) => {
    const got = await predict('rectangle', await flat('#000').png().toBuffer(), query);
    expect([got.status, got.json]).toEqual([400, { error: expect.stringContaining(says) }]);
  });
});

describe('predict of a detector', () => {
  /** 128 × 96, black, with a rectangle that is pink: full red and blue. */
  const box = { x: 32, y: 16, width: 64, height: 32 };
  const pink = () =>
    sharp({ create: { width: 128, height: 96, channels: 3, background: '#000' } }).composite([
      {
        input: { create: { width: box.width, height: box.height, channels: 3, background: '#ff00ff' } },
        left: box.x,
        top: box.y,
      },
    ]);
  /** What pads a letterbox is grey, and so a little green. */
  const padding = expect.closeTo(114 / 255, 5);

  test('boxes are in pixels of the image, the letterbox undone; best first, named', async () => {
    const { status, json } = await predict('rectangle', await pink().png().toBuffer());
    expect(status).toBe(200);
    expect(json).toEqual({
      model_name: 'rectangle',
      model_version: '1',
      detections: [
        { label: 'red', index: 0, score: 1, box },
        { label: 'green', index: 1, score: padding, box },
      ],
    });
  });

  test('of an image that a camera has turned they are in the upright one', async () => {
    const turned = await sharp(await pink().png().toBuffer())
      .rotate(-90)
      .withMetadata({ orientation: 6 })
      .png()
      .toBuffer();
    expect(await sharp(turned).metadata()).toMatchObject({ width: 96, height: 128, orientation: 6 });
    const { json } = await predict('rectangle', turned);
    expect(json.detections[0]).toEqual({ label: 'red', index: 0, score: 1, box });
  });

  test('only from a score on where it is asked for, and as many as the model is allowed', async () => {
    const image = await pink().png().toBuffer();
    const scored = await predict('rectangle', image, '?score=0.5');
    expect(scored.json.detections).toHaveLength(1);
    const few = await predict('few', image);
    expect(few.json.detections).toEqual([{ label: null, index: 0, score: 1, box }]);
  });

  test('without a score only what people are shown: 0.25 and more; every measurement asks for less', async () => {
    const [{ output, width, height, detections }] = found as [(typeof found)[0]];
    const image = await flat('#888').resize(width, height, { fit: 'fill' }).png().toBuffer();
    const scoresOf = async (query: string) =>
      (await predict(fixtureModel(output), image, query)).json.detections.map(({ score }: { score: number }) => score);
    expect(detections.some(({ score }) => score < 0.25)).toBe(true);
    expect(await scoresOf('')).toEqual((await scoresOf('?score=0.001')).filter((score: number) => score >= 0.25));
  });

  test.each(found)('$name: what is found is that of the fixture', async ({ output, width, height, detections }) => {
    const image = await flat('#888').resize(width, height, { fit: 'fill' }).png().toBuffer();
    const { json } = await predict(fixtureModel(output), image, '?score=0.001');
    expect(json.detections).toEqual(
      detections.map(({ label, score, box: [left, top, right, bottom] }) => ({
        label: null,
        index: label,
        score: expect.closeTo(score, 5),
        box: {
          x: expect.closeTo(left, 2),
          y: expect.closeTo(top, 2),
          width: expect.closeTo(right - left, 2),
          height: expect.closeTo(bottom - top, 2),
        },
      })),
    );
  });
});

describe('before a model serves, predict is tried on a picture: what does not hold is said', () => {
  const three = { task: 'DETECTION', labels, preprocess: letterbox };
  test.each<[string, string, object, string]>([
    ['labels that are not as many as the classes', 'brightness', { labels: ['one', 'two'], preprocess: spec }, '3 values, but there are 2'],
    ['scores that are no probabilities', 'brightness', { scores: 'PROBABILITIES', preprocess: levels }, 'no probabilities'],
    ['logits that are probabilities', 'classifier-softmax', { preprocess: shares }, '`scores`: PROBABILITIES'],
    ['a detector as a classifier', 'places-suppressed', { preprocess: letterbox }, 'shape [1,84,6]; a classifier'],
    [
      'two outputs that nobody has explained',
      'rectangle',
      { ...detector, outputLayout: undefined, preprocess: letterbox },
      'say `outputLayout`',
    ],
    [
      'another layout than is said',
      'rectangle',
      { ...detector, outputLayout: 'CENTRES_FIRST', preprocess: letterbox },
      'not have the layout',
    ],
    ['a detector with labels of another', 'rectangle', { ...detector, labels, preprocess: letterbox }, 'BOXES_SCORES of 3 classes'],
    [
      'more classes than places',
      'places-suppressed',
      { ...three, labels: undefined, outputLayout: 'CENTRES_FIRST' },
      '80 classes at 6 places',
    ],
    ['scores before their sigmoid', 'places-logits', three, 'not from 0 to 1'],
    ['boxes as fractions of the input', 'places-fractions', three, 'fractions of the input'],
    ['a class between two classes', 'places-classless', three, 'the class 0.4'],
    ['centres and sizes for edges', 'places-sized', three, 'boxes end before they begin'],
    ['an input that is no image', 'classifier-two', { preprocess: spec }, 'the model has 2 inputs: image, other'],
    ['levels for an input of bytes', 'classifier-bytes', { preprocess: spec }, 'the mean 0 and the std 1/255'],
    ['numbers that no image can be', 'lookup', { preprocess: spec }, 'index is INT64'],
    [
      'sizes that are none of the model',
      'classifier-open',
      { preprocess: spec, dims: { side: 32 } },
      'no open dimension side. There are: batch, height',
    ],
    [
      'another size than is preprocessed',
      'classifier-open',
      { preprocess: spec, dims: { height: 64 } },
      'height is 64, but the preprocessing makes 32',
    ],
    ['one name for two sizes', 'classifier-square', { preprocess: { ...spec, width: 64 } }, 'calls two dimensions size'],
  ])('%s', async (_, model, config, says) => {
    await expect(load(model, config)).rejects.toThrow(says);
  });

  test.each(kinds)('an input of %s takes the picture', async (kind) => {
    const { status, json } = await predict(`classifier-${kind}`, await flat('#10e020').png().toBuffer());
    expect([status, json.classes?.map(({ index }: { index: number }) => index)]).toEqual([200, [1, 2, 0]]);
  });
});

test('metrics: what was asked is counted by outcome, and its time by part', async () => {
  const { body, headers } = await call(`${url}/metrics`);
  expect(headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8');
  const text = body.toString();
  expect(text).toMatch(/whetstone_inference_requests_total\{model="brightness",version="1",outcome="ok"\} [4-9]/);
  expect(text).toMatch(/whetstone_inference_seconds_bucket\{le="\+Inf",model="brightness",version="1",part="preprocessing"\} [4-9]/);
  // Text that Prometheus takes: comments, or a name with labels and a number.
  for (const line of text.split('\n')) expect(line).toMatch(/^(|# (HELP|TYPE) .*|\w+(\{(\w+="[^"]*",?)*\})? [\d.e+-]+)$/);
});
