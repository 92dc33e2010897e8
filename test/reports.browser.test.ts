/** The HTML of a real training, evaluation, comparison and benchmark, opened in a browser. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { Result } from 'axe-core';
import type { Browser, Page } from 'playwright-core';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { toHtml } from '../src/reports/forms/html.ts';
import { studyDocument } from '../src/reports/jobs/studyDocument.ts';
import { executablePath, launchBrowser, whyNoBrowser } from './support/browser.ts';
import { digitFolders } from './support/images.ts';
import type { TestServer } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';
import { madeUpStudy } from './support/studyFacts.ts';
import { type Api, ask, datasetVersionOf, mutate, succeeded, trained } from './support/training.ts';

/** With WHETSTONE_CAPTURES=1 the reports are of a longer training, and the docs get their pictures. */
const captures = Boolean(process.env.WHETSTONE_CAPTURES);
const images = join(import.meta.dirname, '..', 'docs', 'images');
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** Whoever made the dataset named a class like this. */
const hostile = '=1+<svg onload=alert(1)>';
const formats = ['JSON', 'CSV', 'MARKDOWN', 'HTML'] as const;
const file = 'fileName mediaType content sha256 url';

let server: TestServer;
let api: Api;
withSharedServer((running) => {
  server = running;
});

/** Ids of jobs by what is reported. */
const jobs: Record<'training' | 'other' | 'evaluation' | 'benchmark', string> = { training: '', other: '', evaluation: '', benchmark: '' };

beforeAll(async () => {
  api = { url: server.url, token: await server.as('ENGINEER') };
  const [labels, count, epochs] = captures ? [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 50, 8] : [[0, 1, 2], 20, 2];
  const files = await digitFolders(labels, count);
  const named = Object.entries(files).map(([path, bytes]) => [captures ? path : path.replace(/^2\//, `${hostile}/`), bytes] as const);
  const datasetVersionId = await datasetVersionOf(api, 'digits', Object.fromEntries(named));
  const train = async ({ convert = true, ...hyperparameters }: { convert?: boolean; batchSize?: number; learningRate?: number }) => {
    const usual = { imageSize: 32, epochs, batchSize: 8, flip: 0, warmupSteps: 4 };
    const input = { modelName: 'digits', datasetVersionId, preset: 'resnet18', hyperparameters: { ...usual, ...hyperparameters } };
    const { job } = await mutate(api, 'startTraining', { ...input, seed: 7, convert }, 'job { id }');
    return job.id as string;
  };
  const first = await train({});
  const second = await train({ batchSize: 16, learningRate: 0.003, convert: false });
  await succeeded(api, second);
  const { modelVersionId } = (await trained(api, first)).children[0].result;
  const evaluation = { modelVersionId, datasetVersionId, split: 'VAL', testTimeAugmentation: 'FLIP' };
  const evaluated = await mutate(api, 'startEvaluation', evaluation, 'job { id }');
  await succeeded(api, evaluated.job.id);
  const seconds = captures ? 8 : 0.5;
  const times = { secondsMin: seconds, secondsMax: seconds, warmupSecondsMax: captures ? 2 : 0.2 };
  const measured = await mutate(
    api,
    'startBenchmark',
    { modelVersionIds: [modelVersionId], batchSizes: [1, 4], intraOpThreads: [1, 2], engines: ['ONNXRUNTIME_CPU'], ...times },
    'job { id }',
  );
  await succeeded(api, measured.job.id);
  Object.assign(jobs, { training: first, other: second, evaluation: evaluated.job.id, benchmark: measured.job.id });
}, 3_600_000);

const reports = {
  training: () => [jobs.training],
  evaluation: () => [jobs.evaluation],
  comparison: () => [jobs.training, jobs.other],
};
const names = [...(Object.keys(reports) as (keyof typeof reports)[]), 'benchmark'] as const;
type Name = (typeof names)[number];

async function exported(name: Name, format: (typeof formats)[number], token = api.token) {
  if (name === 'benchmark') {
    const query = `query ($id: ID!, $format: ReportFormat!) { job(id: $id) { report { export(format: $format) { ${file} } } } }`;
    const { data, errors } = await ask({ ...api, token }, query, { id: jobs.benchmark, format });
    expect(errors).toBeUndefined();
    return data.job.report.export;
  }
  const query = `query ($ids: [ID!]!, $format: ReportFormat!) { exportJobs(jobIds: $ids, format: $format) { ${file} } }`;
  const { data, errors } = await ask({ ...api, token }, query, { ids: reports[name](), format });
  expect(errors).toBeUndefined();
  return data.exportJobs;
}

describe.each(names)('the report of a %s', (name) => {
  test('has the same facts in every format, each time', async () => {
    const json = await exported(name, 'JSON');
    expect(createHash('sha256').update(json.content).digest('hex')).toBe(json.sha256);
    expect(json.fileName).toBe(`${name === 'benchmark' ? 'report' : name}-${json.sha256.slice(0, 12)}.json`);
    for (const format of formats) {
      const made = await exported(name, format, await server.as('VIEWER'));
      expect(made).toMatchObject({ sha256: json.sha256, content: (await exported(name, format)).content });
      if (format === 'MARKDOWN' || format === 'HTML') expect(made.content).toContain(json.sha256);
    }
  });

  test('shows the names that users chose as names', async () => {
    const csv: string = (await exported(name, 'CSV')).content;
    expect(csv.split(/\r\n|,/).filter((cell) => /^"?[=+@]/.test(cell))).toEqual([]);
    const markdown: string = (await exported(name, 'MARKDOWN')).content;
    expect(markdown).not.toMatch(/(^|[^\\])<svg/);
    const html: string = (await exported(name, 'HTML')).content;
    expect(html).not.toContain('<svg onload');
    if (name === 'training' && !captures) expect(html).toContain('=1+&#60;svg onload=alert(1)&#62;');
  });

  test('is served behind its link, and nothing in it can run', async () => {
    const { url, content, fileName } = await exported(name, 'HTML');
    const response = await fetch(server.url + url);
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toBe('text/html; charset=utf-8');
    expect(response.headers.get('content-security-policy')).toBe(
      "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox",
    );
    expect(await response.text()).toBe(content);
    expect((await fetch(server.url + url.replace('/HTML', '/JSON'))).status).toBe(403);
    const markdown = await fetch(server.url + (await exported(name, 'MARKDOWN')).url);
    expect(markdown.headers.get('content-disposition')).toContain(fileName.replace(/html$/, 'md'));
  });
});

test('the report of an evaluation shows its worst images, and says that mirror images were added', async () => {
  const { content } = await exported('evaluation', 'HTML');
  expect(content).toContain('each image together with its mirror image (test-time augmentation)');
  const pictures = [...content.matchAll(/<image href="(data:image\/webp;base64,[^"]+)"/g)].map(([, address]) => address as string);
  expect(pictures.length).toBeGreaterThanOrEqual(12);
  const { format } = await sharp(Buffer.from((pictures[0] as string).split(',')[1] as string, 'base64')).metadata();
  expect(format).toBe('webp');
  const { evaluation } = JSON.parse((await exported('evaluation', 'JSON')).content);
  expect(evaluation.findings.worst).toHaveLength(12);
  expect(evaluation.findings.worst[0]).toMatchObject({ path: expect.stringMatching(/\.png$/), loss: expect.any(Number) });
});

test('what cannot be reported is refused with what can', async () => {
  const query = 'query ($ids: [ID!]!) { exportJobs(jobIds: $ids, format: HTML) { fileName } }';
  const { training, other, evaluation, benchmark } = jobs;
  const refusals: [string[], string][] = [
    [[], '`jobIds` names 0 jobs.'],
    [[training, training], '`jobIds` names the same job more than once.'],
    [[training, evaluation], '`jobIds` names 2 jobs, one of them of the kind EVALUATE.'],
    [[benchmark], '`jobIds` names a BENCHMARK job'],
  ];
  for (const [ids, message] of refusals) {
    const { errors } = await ask(api, query, { ids });
    expect(errors?.[0]).toMatchObject({ message: expect.stringContaining(message), extensions: { code: 'INVALID' } });
  }
  const five = await ask(api, query, { ids: [training, other, benchmark, evaluation, training] });
  expect(five.errors?.[0].extensions.code).toBe('INVALID');
  const stranger = await ask({ ...api, token: '' }, query, { ids: [training] });
  expect(stranger.errors?.[0].extensions.code).toBe('UNAUTHENTICATED');
});

describe.skipIf(!executablePath)(`in Chromium, every other host blocked${whyNoBrowser}`, () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await launchBrowser();
  });
  afterAll(() => browser?.close());

  /** Runs `use` with the report as a browser shows it that follows its link. */
  async function withReport(name: Name, colorScheme: 'light' | 'dark', use: (page: Page) => Promise<void>): Promise<void> {
    const { url } = await exported(name, 'HTML');
    const context = await browser.newContext({ colorScheme, viewport: { width: 1060, height: 800 } });
    try {
      const asked: string[] = [];
      const complaints: string[] = [];
      await context.route('**/*', (route) => {
        asked.push(route.request().url());
        return route.request().url() === server.url + url ? route.continue() : route.abort();
      });
      const page = await context.newPage();
      page.on('console', (message) => complaints.push(message.text()));
      page.on('pageerror', (error) => complaints.push(error.message));
      await page.goto(server.url + url, { waitUntil: 'networkidle' });
      await use(page);
      expect(complaints).toEqual([]);
      expect(asked).toEqual([server.url + url]);
    } finally {
      await context.close();
    }
  }

  /** What the docs show: the upper part of the page, in few colours so that the repository stays small. */
  async function capture(page: Page, name: Name): Promise<void> {
    const height = Math.min(1700, await page.evaluate<number>('document.documentElement.scrollHeight'));
    const png = await page.screenshot({ fullPage: true, clip: { x: 0, y: 0, width: 1060, height } });
    await sharp(png)
      .png({ palette: true, colours: 32, dither: 0 })
      .toFile(join(images, `${name}.png`));
  }

  describe.each(names)('the report of a %s', (name) => {
    test('has no serious fault of accessibility, in light and in dark', () =>
      withReport(name, name === 'training' ? 'dark' : 'light', async (page) => {
        if (captures) await capture(page, name);
        await expectAccessible((await exported(name, 'HTML')).content);
      }));

    test('has plots that fill their frames, and no text beyond the page', () => withReport(name, 'light', expectInside));
  });

  test('the report of a study that nobody ran has no serious fault of accessibility, and plots that fill their frames', () =>
    expectAccessible(toHtml(studyDocument(madeUpStudy, 'a'.repeat(64))), expectInside));

  /** Where it is served no script runs: axe looks at the saved file. */
  async function expectAccessible(content: string, use: (page: Page) => Promise<void> = async () => {}): Promise<void> {
    const context = await browser.newContext({ bypassCSP: true });
    const saved = await context.newPage();
    await saved.setContent(content.replaceAll('<details>', '<details open>'));
    await use(saved);
    await saved.evaluate(axe);
    for (const colorScheme of ['light', 'dark'] as const) {
      await saved.emulateMedia({ colorScheme });
      // The scheme changes colours only.
      const options = colorScheme === 'light' ? '' : "{ runOnly: ['color-contrast'] }";
      const { violations, passes } = await saved.evaluate<Record<'violations' | 'passes', Result[]>>(`axe.run(${options})`);
      const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
      expect(serious.map(({ id, nodes }) => [colorScheme, id, nodes.map(({ html }) => html)])).toEqual([]);
      const passed = colorScheme === 'light' ? ['color-contrast', 'heading-order', 'svg-img-alt', 'html-has-lang'] : ['color-contrast'];
      expect(passes.map(({ id }) => id)).toEqual(expect.arrayContaining(passed));
    }
    await context.close();
  }

  async function expectInside(page: Page): Promise<void> {
    const outside = await page.evaluate<string[]>(`[...document.querySelectorAll('svg.plot')].flatMap((svg) => {
      const frame = svg.getBoundingClientRect();
      return [...svg.querySelectorAll('text')].filter((text) => {
        const box = text.getBoundingClientRect();
        return box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
      }).map((text) => text.textContent);
    })`);
    expect(outside).toEqual([]);
    expect(await page.locator('svg.plot').count()).toBeGreaterThan(0);
    expect(await page.evaluate('document.documentElement.scrollWidth <= document.documentElement.clientWidth')).toBe(true);
  }

  // The longer training has ten classes, whose table takes a third page.
  test.each([...(captures ? [] : (['training'] as const)), 'evaluation', 'benchmark'] as const)('a %s prints on two pages of A4', (name) =>
    withReport(name, 'dark', async (page) => {
      const pdf = (await page.pdf({ preferCSSPageSize: true, printBackground: true })).toString('latin1');
      expect([...pdf.matchAll(/\/Type\s*\/Page\b(?!s)/g)].length).toBeLessThanOrEqual(2);
    }),
  );
});
