import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { decode } from '../tui/ui/decode.ts';
import { type PictureBox, type Pixels, pictureLines } from '../tui/ui/picture.ts';
import { colourDepthOf } from '../tui/ui/theme.ts';
import { deployed } from './support/deployments.ts';
import { digit } from './support/images.ts';
import { makeInferenceModels } from './support/inference.ts';
import { withFolder, withServer } from './support/server.ts';
import { fill, hasTmux, logIn, whyNot, withTerminal } from './support/terminal.ts';
import { digitsVersion, modelVersionOf } from './support/training.ts';

const pixels = (width: number, height: number, ...colours: number[][]): Pixels => ({
  width,
  height,
  data: Uint8Array.from(colours.flat()),
});
const plain = (width: number, height: number) => pixels(width, height, ...Array.from({ length: width * height }, () => [10, 20, 30]));
const box = (about: Partial<PictureBox>): PictureBox => ({ x: 0, y: 0, width: 4, height: 4, label: '', class: 0, ...about });

describe('a picture as lines', () => {
  test('a cell has the pixel above as its text and the one below behind it; a colour is named when it changes', () => {
    const two = pixels(2, 2, [255, 0, 0], [255, 0, 0], [0, 0, 255], [0, 0, 255]);
    expect(pictureLines(two, [], 'TRUE')).toEqual(['\x1b[38;2;255;0;0;48;2;0;0;255m▀▀\x1b[0m']);
    expect(pictureLines(two, [], 'MANY')).toEqual(['\x1b[38;5;196;48;5;21m▀▀\x1b[0m']);
    expect(pictureLines(two, [], 'SIXTEEN')).toEqual(['\x1b[91;104m▀▀\x1b[0m']);
    expect(pictureLines(two, [], 'NONE')).toEqual([]);
  });

  test('greys are greys of the 256, dark colours those of the first eight', () => {
    const grey = pixels(1, 2, [128, 128, 128], [200, 0, 0]);
    expect(pictureLines(grey, [], 'MANY')).toEqual(['\x1b[38;5;244;48;5;160m▀\x1b[0m']);
    expect(pictureLines(grey, [], 'SIXTEEN')).toEqual(['\x1b[90;41m▀\x1b[0m']);
  });

  test('a last single row has nothing below it', () => {
    expect(pictureLines(pixels(1, 1, [1, 2, 3]), [], 'TRUE')).toEqual(['\x1b[38;2;1;2;3;48;2;0;0;0m▀\x1b[0m']);
  });

  test('a box is outlined in the colour of its class, with its label above it', () => {
    const source = plain(12, 12);
    const lines = pictureLines(source, [box({ x: 2, y: 4, width: 6, height: 6, label: 'cat 90%' })], 'TRUE');
    expect(lines.map(stripVTControlCharacters)).toEqual(['▀'.repeat(12), '▀▀cat 90%▀▀▀', ...Array(4).fill('▀'.repeat(12))]);
    expect(lines[2]).toContain('38;2;86;180;233;48;2;10;20;30');
    expect(lines[5]).not.toContain('86;180;233');
    const other = pictureLines(source, [box({ x: 2, y: 4, class: 1 })], 'TRUE');
    expect(other[2]).toContain('38;2;230;159;0');
    const both = pictureLines(source, [box({ y: 4, label: 'best' }), box({ y: 4, label: 'second' })], 'TRUE');
    expect(stripVTControlCharacters(both[1] ?? '')).toMatch(/^best▀/);
    // The pixels stay as they were.
    expect(source).toEqual(plain(12, 12));
  });

  test('a box that leaves the picture ends at its edge, and so does its label', () => {
    for (const outside of [box({ x: -5, y: -5, width: 30, height: 30, label: 'wide '.repeat(9) }), box({ x: 90, y: 90, label: 'far' })]) {
      const lines = pictureLines(plain(8, 8), [outside], 'TRUE').map(stripVTControlCharacters);
      expect(lines.map((line) => [...line].length)).toEqual([8, 8, 8, 8]);
    }
  });

  test('an image is decoded upright, in its own proportions, grey ones too', async () => {
    const wide = await sharp({ create: { width: 40, height: 20, channels: 3, background: '#ff0000' } })
      .withMetadata({ orientation: 6 })
      .jpeg()
      .toBuffer();
    const { pixels: turned, width, height } = await decode(wide, 30, 30);
    expect([turned.width, turned.height, width, height]).toEqual([15, 30, 20, 40]);
    expect(turned.data).toHaveLength(3 * 15 * 30);
    const grey = await decode(await digit(1, 0), 14, 14);
    expect(grey.pixels.data).toHaveLength(3 * 14 * 14);
    await expect(decode(Buffer.from('hello'), 4, 4)).rejects.toThrow('unsupported image format');
  });

  test('the colours are those that the terminal has', () => {
    expect(
      [{ NO_COLOR: '1', COLORTERM: 'truecolor' }, { TERM: 'xterm' }, { TERM: 'screen-256color' }, { COLORTERM: '24bit' }].map(
        colourDepthOf,
      ),
    ).toEqual(['NONE', 'SIXTEEN', 'MANY', 'TRUE']);
  });
});

const models = mkdtempSync(join(tmpdir(), 'whetstone-models-'));
beforeAll(() => makeInferenceModels(models, ['rectangle']));
afterAll(() => rmSync(models, { recursive: true }));

test.skipIf(!hasTmux)(
  `pictures of a dataset, and an image that was tried with its boxes, in colours and without${whyNot}`,
  { timeout: 240_000 },
  () =>
    withServer(async (server) => {
      const api = { url: server.url, token: await server.admin() };
      await digitsVersion(api, [3, 7], 12);
      const preprocess = { version: 1, width: 64, height: 64, mode: 'LETTERBOX', mean: [0, 0, 0], std: [1, 1, 1] };
      const about = { task: 'DETECTION', labels: ['red', 'green'], preprocess };
      const version = await modelVersionOf(api, 'rectangle', join(models, 'rectangle.onnx'), about);
      await deployed(api, 'boxes', version, { deadlineMs: 30_000, outputLayout: 'BOXES_SCORES' });
      const pink = { create: { width: 64, height: 32, channels: 3, background: '#ff00ff' } } as const;
      const image = await sharp({ create: { width: 128, height: 96, channels: 3, background: '#000' } })
        .composite([{ input: pink, left: 32, top: 32 }])
        .png()
        .toBuffer();
      await withFolder(async (folder) => {
        writeFileSync(join(folder, 'a.png'), image);
        await withTerminal({ folder, args: ['--url', server.url] }, async (terminal) => {
          await logIn(terminal);
          terminal.type('3');
          await terminal.shows('digits ');
          terminal.type('Enter');
          await terminal.shows('Class ');
          terminal.type('v');
          await terminal.shows('digits v1  all classes  page 1');
          // Two rows of four, the digits white on black.
          await terminal.shows(/(▀{18} *){4}/);
          await terminal.shows(/(3, train *){4}/);
          expect(terminal.screen(true)).toMatch(/38;2;2[45]\d;2[45]\d;2[45]\d/);
          terminal.type('j');
          await terminal.shows('page 2');
          terminal.type('c', 'c');
          await terminal.shows('digits v1  7  page 1');
          await terminal.shows(/(7, train *){4}/);

          terminal.type(':', 'deployments', 'Enter');
          await terminal.shows('boxes ');
          terminal.type('i');
          await terminal.shows('Try boxes');
          await fill(terminal, 'Image', join(folder, 'a.png'));
          terminal.type('C-s');
          await terminal.shows('2 detections');
          await terminal.shows(/▀red 100%▀/);
          await terminal.shows(/red +100.0 % +64 × 32 at 32, 32/);
          expect(terminal.screen(true)).toMatch(/48;2;255;0;255/);
          terminal.type('C-o');
          await terminal.shows(/(▀{9}.*\n){18}/);
          await terminal.shows('back to the form');
          terminal.type('Escape');
          await terminal.shows('Try boxes');
          expect(terminal.screen()).toContain('a.png');
        });
        await withTerminal({ folder, args: ['infer', 'boxes'], env: { NO_COLOR: '1' } }, async (terminal) => {
          await terminal.shows('Try boxes');
          await fill(terminal, 'Image', join(folder, 'a.png'));
          terminal.type('C-s');
          await terminal.shows(/red +100.0 % +64 × 32 at 32, 32/);
          expect(terminal.screen()).not.toContain('▀');
          terminal.type('Escape');
          await terminal.shows('Memory');
          terminal.type('3');
          await terminal.shows('digits ');
          terminal.type('Enter');
          await terminal.shows('Class ');
          terminal.type('v');
          await terminal.shows(/train +3 +28 × 28 +3\/0\.png/);
        });
      });
    }),
);
