/**
 * The whole way in one terminal: first account, dataset, training, gate, benchmark, report, deployment, an image. `npm run captures`
 * also writes its screens into the documents that show them.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { digit, digitFolders, writeZip } from './support/images.ts';
import { withServerProcess } from './support/process.ts';
import { adminName, adminPassword, withFolder } from './support/server.ts';
import { fill, hasTmux, toField, whyNot, withTerminal } from './support/terminal.ts';

const longMs = 900_000;
const documents = ['README.md', 'docs/tui.md'].map((name) => join(import.meta.dirname, '..', name));

/** A screen with its pictures as text without colours: half blocks where a pixel is bright. */
function inBlackAndWhite(coloured: string): string {
  const bright = { 38: false, 48: false };
  const [before = '', ...pieces] = coloured.split('\x1b[');
  const shown = pieces.map((piece) => {
    const end = piece.indexOf('m');
    for (const [, layer, green] of piece.slice(0, end).matchAll(/(38|48)[;:]2[;:]\d+[;:](\d+)[;:]\d+/g))
      bright[Number(layer) as 38 | 48] = Number(green) > 127;
    const block = ' ▄▀█'[2 * Number(bright[38]) + Number(bright[48])] as string;
    return piece.slice(end + 1).replaceAll('▀', block);
  });
  return before + shown.join('');
}

test.skipIf(!hasTmux)(`from the first account to the answer for an image${whyNot}`, { timeout: 2 * longMs }, () =>
  withFolder((folder) =>
    withServerProcess({ WHETSTONE_DATA_DIR: join(folder, 'data') }, async ({ url }) => {
      const captures = new Map<string, string>();
      const zip = await writeZip(join(folder, 'digits.zip'), await digitFolders([0, 1, 2], 60));
      const image = join(folder, 'one.png');
      writeFileSync(image, await digit(1, 500));
      const report = join(folder, 'report.md');
      const env = { WHETSTONE_DATA_DIR: join(folder, 'data') };

      await withTerminal({ folder, args: ['--url', url], env }, async (terminal) => {
        const capture = (name: string, screen = terminal.screen()) =>
          captures.set(name, screen.trimEnd().replaceAll(url.replace('http://', ''), '127.0.0.1:8080'));
        await terminal.shows('This server is new');
        terminal.type(adminName, 'Enter', adminPassword);
        await terminal.shows('••••');
        capture('first account');
        terminal.type('C-s');
        await terminal.shows('Memory');

        terminal.type('3', 'u');
        await terminal.shows('Upload a dataset');
        await fill(terminal, 'File', zip);
        await fill(terminal, 'Name', 'digits');
        await toField(terminal, 'Task');
        terminal.type('C');
        await terminal.shows('CLASSIFICATION');
        capture('form');
        terminal.type('C-s');
        await terminal.shows(/✓ SUCCEEDED +IMPORT_DATASET/);
        terminal.type('3');
        await terminal.shows(/digits +CLASSIFICATION +1/);
        terminal.type('Enter');
        await terminal.shows('Class ');
        capture('dataset');
        terminal.type('v');
        await terminal.shows('▀▀▀');
        capture('pictures', inBlackAndWhite(terminal.screen(true)));

        terminal.type(':', 'train', 'Enter');
        await terminal.shows('Start a training');
        await fill(terminal, 'Model name', 'digits');
        await fill(terminal, 'Image size', '32');
        await fill(terminal, 'Epochs', '4');
        await fill(terminal, 'Batch size', '16');
        await fill(terminal, 'Warmup steps', '10');
        await terminal.shows(/› Warmup steps +10$/m);
        capture('start a training');
        terminal.type('C-s');
        await terminal.shows(/▶ RUNNING +TRAIN/);
        // One epoch is a dot, the next a line.
        await terminal.shows('train.loss', longMs);
        const first = terminal.screen();
        await expect.poll(() => terminal.screen().match(/[⠁-⣿]/g)?.length ?? 0, { timeout: longMs }).toBeGreaterThan(10);
        expect(terminal.screen()).not.toBe(first);
        terminal.resize(120, 40);
        await terminal.shows(/loss .*top1 /);
        terminal.resize(40, 12);
        await terminal.shows(/^.{0,40}● connected$/m);
        await terminal.shows('train.loss');
        capture('job, 40 × 12');
        terminal.resize(80, 24);
        await terminal.shows(/✓ SUCCEEDED +TRAIN/, longMs);
        await terminal.shows('CONVERT');
        capture('job');
        terminal.type('1');
        await terminal.shows('enter open the job');
        capture('overview');
        terminal.type('2');
        await terminal.shows(/SUCCEEDED +CONVERT/, longMs);
        capture('jobs');
        terminal.type('Enter');
        await terminal.shows('gate ');
        terminal.type('l');
        await terminal.shows('lines, following');
        terminal.type('Escape');
        await terminal.shows('gate ');
        terminal.type('4');
        await terminal.shows(/digits +CLASSIFICATION/);
        terminal.type('Enter');
        await terminal.shows('CONVERTED');
        capture('model');
        if (!/› +\d+ .*ONNX/.test(terminal.screen())) terminal.type('j');
        await terminal.shows(/› +\d+ .*ONNX/);

        terminal.type('b');
        await terminal.shows('Start a benchmark');
        terminal.type('C-s');
        await terminal.shows(/▶ RUNNING +BENCHMARK/, longMs);
        terminal.type('5');
        await terminal.shows(/› +▶ RUNNING +digits/);
        terminal.type('Enter');
        await terminal.shows(/by rounds[\s\S]*█|open the report/, longMs);
        capture('benchmark, running');
        await terminal.shows('open the report', longMs);
        capture('benchmark');
        terminal.type('o');
        await terminal.shows('• ');
        capture('report');
        terminal.type('v');
        await terminal.shows('row 0');
        capture('report, technical');
        terminal.type('e');
        await terminal.shows('Export the report');
        await fill(terminal, 'File', report);
        terminal.type('C-s');
        await terminal.shows('Written to');
        expect(readFileSync(report, 'utf8')).toContain('#');

        terminal.type('4');
        await terminal.shows(/digits +CLASSIFICATION/);
        terminal.type('Enter');
        await terminal.shows('CONVERTED');
        if (!/› +\d+ .*ONNX/.test(terminal.screen())) terminal.type('j');
        await terminal.shows(/› +\d+ .*ONNX/);
        terminal.type('d');
        await terminal.shows('Deploy a model version');
        await fill(terminal, 'Name', 'reader');
        terminal.type('C-s');
        await terminal.shows('Done.');
        terminal.type('7');
        await terminal.shows(/reader +digits v\d/, longMs);
        capture('deployments');
        terminal.type('Enter');
        await terminal.shows(/^ curl .*\\\n {3}-H .*\\\n {3}--data-binary @image\.jpg$/m);
        capture('deployment');
        terminal.type('Escape');
        await terminal.shows('Inference host');
        terminal.type('i');
        await terminal.shows('Try reader');
        await fill(terminal, 'Image', image);
        terminal.type('C-s');
        await terminal.shows('answered in');
        await terminal.shows(/▀▀▀[\s\S]*█/);
        capture('try an image', inBlackAndWhite(terminal.screen(true)).replace(/\S*one\.png/, 'one.png'));
        terminal.type('Escape');
        await terminal.shows('roll back');
        terminal.type(':', 'train', 'Enter');
        await terminal.shows('Start a training');
        await fill(terminal, 'Model name', 'digits');
        await toField(terminal, 'Convert');
        terminal.type('f');
        await fill(terminal, 'Image size', '32');
        await fill(terminal, 'Epochs', '4');
        await fill(terminal, 'Batch size', '16');
        await fill(terminal, 'Learning rate', '0.0003');
        await fill(terminal, 'Warmup steps', '10');
        terminal.type('C-s');
        await terminal.shows(/▶ RUNNING +TRAIN/, longMs);
        terminal.type('8');
        await terminal.shows(/^ : go to a screen by name/m);
        await terminal.shows(/TRAIN +SUCCEEDED/, longMs);
        capture('events');
        terminal.type('2');
        await terminal.shows(/› ✓ SUCCEEDED +TRAIN/);
        terminal.type('m');
        await terminal.shows(/› A .*TRAIN/);
        // The first training follows the import, which is the last row.
        terminal.type('G', 'k', 'm');
        await terminal.shows(/› B .*TRAIN/);
        terminal.type('c');
        await terminal.shows(/setting +learningRate/);
        await terminal.shows(/B .*epoch 4/);
        capture('compare');

        terminal.type(':', 'users', 'Enter');
        await terminal.shows('ADMIN');
        terminal.type('n');
        await terminal.shows('New user');
        await fill(terminal, 'Name', 'grace');
        await toField(terminal, 'Role');
        terminal.type('E');
        await fill(terminal, 'Password', 'correct horse battery staple');
        terminal.type('C-s');
        await terminal.shows(/grace +ENGINEER/);
        capture('users');
        terminal.type('K');
        await terminal.shows('There is no API key.');
        terminal.type('n');
        await terminal.shows('New API key');
        await fill(terminal, 'Name', 'camera');
        await fill(terminal, 'Deployments', 'reader');
        await fill(terminal, 'Expires in days', '90');
        terminal.type('C-s');
        await terminal.shows('The secret of camera.');
        terminal.type('Enter');
        await terminal.shows(/camera +✓ active/);
        capture('api keys');
        terminal.type(':', 'audit', 'Enter');
        await terminal.shows('createApiKey');
        capture('audit log');
      });

      if (process.env.WHETSTONE_CAPTURES) {
        for (const document of documents) {
          const text = readFileSync(document, 'utf8').replace(/<!-- capture: (.+?) -->\n```text\n[\s\S]*?```/g, (whole, name: string) => {
            const screen = captures.get(name)?.replaceAll(folder, '~');
            return screen ? `<!-- capture: ${name} -->\n\`\`\`text\n${screen.replace(/ +$/gm, '')}\n\`\`\`` : whole;
          });
          writeFileSync(document, text);
        }
      }
    }),
  ),
);
