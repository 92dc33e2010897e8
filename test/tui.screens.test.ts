import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type DocumentNode, print } from 'graphql';
import { describe, expect, test, vi } from 'vitest';
import { datasetVersion } from '../src/datasets/tables.ts';
import { checkDocument, parseLimited } from '../src/graphql/limits.ts';
import { schema } from '../src/graphql/schema.ts';
import { actions } from '../tui/actions.ts';
import { chartsOf } from '../tui/screens/curves.ts';
import { appended, evaluationText, type JobEvent } from '../tui/screens/job.tsx';
import { type JobRow, order } from '../tui/screens/jobs.tsx';
import { rateOf } from '../tui/screens/overview.tsx';
import { screens } from '../tui/screens/screens.ts';
import { merged } from '../tui/session/live.tsx';
import { age, bar, bytes, duration, number, padTo, wrap } from '../tui/ui/format.ts';
import { eventually } from './support/eventually.ts';
import { storeObjects } from './support/objects.ts';
import { withServer } from './support/server.ts';
import { key, logIn, withTui } from './support/tui.ts';

test('the names of classes are whole where there is room', () =>
  withServer(async (server) => {
    await server.admin();
    storeObjects(server);
    const name = 'Quercus robur, autumn, with acorns';
    server.services.db
      .update(datasetVersion)
      .set({ classesJson: [name] })
      .run();
    await withTui(
      server.url,
      async (tui) => {
        await logIn(tui);
        await tui.shows(`${name} `);
        tui.resize(60, 24);
        await tui.shows('Quercus robur, autu… ');
      },
      { first: { screen: 'dataset', id: 'one' } },
    );
  }));

describe('the way in', () => {
  test('a new server: the first account, then the overview; what the server refuses stands at its field', () =>
    withServer(async ({ url, dataDir }) => {
      await withTui(url, async (tui) => {
        await tui.shows('This server is new');
        await tui.shows('1 to 64 letters from A to Z, digits, or . _ @ -');
        tui.type(`ada\rshort\r${readFileSync(join(dataDir, 'bootstrap-token'), 'utf8')}`);
        await tui.shows('A password has at least 12 characters.');
        await tui.shows(/› Password .*✗/);
        tui.type(`\x15correct horse battery staple\x13`);
        await tui.shows('● connected');
      });
    }));

  test('a long refusal is shown to its last word on a narrow screen', () =>
    withServer(async ({ url, dataDir }) => {
      const token = readFileSync(join(dataDir, 'bootstrap-token'), 'utf8');
      await withTui(
        url,
        async (tui) => {
          await tui.shows('This server is new');
          tui.type('ä'.repeat(36));
          await tui.shows(/› Name .*ä/);
          tui.type('\rcorrect horse battery staple\r');
          await tui.shows(/› Boot/);
          tui.type(token);
          await tui.shows(/› Name .*✗/);
          const shown = () => tui.lines().join(' ').replace(/\s+/g, ' ');
          await eventually(() => expect(shown()).toContain('no spaces, and starts with a letter or digit.'));
        },
        { columns: 40, rows: 18 },
      );
    }));

  test('a wrong password is said, and can be corrected', () =>
    withServer(async (server) => {
      await server.admin();
      await withTui(server.url, async (tui) => {
        await tui.shows('Log in to');
        tui.type('ada\rwrong password\r');
        await tui.shows('The name or the password is wrong.');
        expect(tui.lines().join()).not.toContain('wrong password');
        tui.type('\x15correct horse battery staple\r');
        await tui.shows('● connected');
        await tui.shows('Slot');
      });
    }));

  test('without a server it says so and offers to start one', async () => {
    await withTui('http://127.0.0.1:1', async (tui) => {
      await tui.shows('There is no server at http://127.0.0.1:1.');
      await tui.shows('start one here, on the data folder');
    });
    await withTui('http://lab.invalid:1', async (tui) => {
      await tui.shows('There is no server at http://lab.invalid:1.');
      expect(tui.lines().join('\n')).not.toContain('start one here');
    });
  });
});

describe('the frame', () => {
  test('numbers, tab and the palette lead to screens; the help lists the keys that work', () =>
    withServer(async (server) => {
      await server.admin();
      await withTui(server.url, async (tui) => {
        await logIn(tui);
        tui.type('2');
        await tui.shows('There are no jobs yet.');
        tui.type(key.tab);
        await tui.shows('There is no dataset yet');
        tui.type(':');
        await tui.shows('Start a training');
        // The last one, behind what fits.
        tui.type(key.up);
        await tui.shows(/› quit +Quit/);
        tui.type('repo');
        await tui.showsNot('Start a training');
        tui.type(key.enter);
        await tui.shows('There is no report yet');
        tui.type('4?');
        await tui.shows('Keys of this screen');
        await tui.shows(/u\s+upload/);
        tui.type(key.esc);
        await tui.shows('There is no model yet');
        tui.type('/abc');
        await tui.shows('/abc');
        await tui.shows('Nothing matches “abc”.');
        tui.type(key.esc);
        await tui.shows('There is no model yet');
        tui.type(':logout\r');
        await tui.shows('The session has ended. Log in again.');
      });
    }));

  test('120 × 40, 80 × 24, 40 × 24 and 40 × 12 hold every screen whole and name it; below that it says how large it must be', () =>
    withServer(async (server) => {
      await server.admin();
      await withTui(server.url, async (tui) => {
        await logIn(tui);
        for (const [columns, rows] of [
          [120, 40],
          [40, 24],
          [40, 12],
          [80, 24],
        ] as const) {
          tui.resize(columns, rows);
          for (const [i, { title, short }] of screens.filter(({ from }) => from === 'LISTED').entries()) {
            tui.type(String(i + 1));
            await tui.shows(rows >= 16 ? new RegExp(`^ .*\\b${i + 1} (${title}|${short})( |$)`) : new RegExp(`^ ${title} .*●`));
            const widest = () => Math.max(...tui.lines().map((line) => [...line].length));
            await vi.waitUntil(() => tui.lines().length <= rows && widest() <= columns, { timeout: 30_000 });
            expect(tui.lines().at(-1)).toContain('? help');
          }
        }
        tui.resize(39, 12);
        await tui.shows('is 39 × 12; 40 × 12');
      });
    }));
});

test.each(Object.entries(actions))('the action %s fits the schema and the limits', (_name, { document }) => fits(document));

function fits(document: unknown): void {
  const parsed = parseLimited(print(document as DocumentNode));
  checkDocument(schema, parsed, { id: 'a', ids: ['a', 'b', 'c', 'd'], after: null, name: 'a' });
}

test.each(screens.flatMap((screen) => (screen.query ? [[screen.name, screen.query] as const] : [])))(
  'the query of the screen %s fits the limits',
  (_name, query) => fits(query),
);

describe('what the screens compute', () => {
  const job = (id: string, createdAt: string, state = 'RUNNING') => ({ id, createdAt, state }) as JobRow;

  test('jobs: the newest first, a change in place of what was there', () => {
    const jobs = merged([job('a', '1'), job('b', '2')], [job('c', '3'), job('a', '1', 'SUCCEEDED')], order);
    expect(jobs.map(({ id, state }) => `${id} ${state}`)).toEqual(['c RUNNING', 'b RUNNING', 'a SUCCEEDED']);
  });

  test('events that come again after a lost connection count once', () => {
    const events = (...seqs: number[]) => seqs.map((seq) => ({ seq })) as JobEvent[];
    expect(appended(events(1, 2), events(2, 3)).map(({ seq }) => seq)).toEqual([1, 2, 3]);
  });

  test('charts: a measure each, the loss first, the learning rate last; an epoch that was repeated counts once', () => {
    const metrics = (loss: number) => [
      { name: 'learningRate', value: 0.1 },
      { name: 'val.top1', value: 0.5 },
      { name: 'val.loss', value: loss },
      { name: 'train.loss', value: loss },
    ];
    const charts = chartsOf([
      { step: 4, epoch: 1, metrics: metrics(3) },
      { step: 8, epoch: 2, metrics: metrics(2) },
      { step: 8, epoch: 2, metrics: metrics(1) },
    ]);
    expect(charts.map(({ title, series }) => [title, series.map(({ name }) => name)])).toEqual([
      ['loss', ['train.loss', 'val.loss']],
      ['top1', ['val.top1']],
      ['learningRate', ['learningRate']],
    ]);
    expect(charts[0]?.series[0]?.points).toEqual([
      { x: 4, y: 3 },
      { x: 8, y: 1 },
    ]);
  });

  test('requests a second, between two readings', () => {
    const reading = (at: number, answered: number) => ({ at, stats: { deployments: [{ name: 'a', revision: 1, answered }] } as never });
    expect(rateOf('a', 1, [reading(0, 10), reading(2000, 30)])).toBe(10);
    expect(rateOf('a', 2, [reading(0, 10), reading(2000, 30)])).toBeNull();
    expect(rateOf('a', 1, [reading(0, 10)])).toBeNull();
  });

  test('numbers, sizes, times and texts', () => {
    expect([1.23456, 0, 1e-7, 12_345_678, null].map(number)).toEqual(['1.235', '0', '1.00e-7', '1.23e7', '–']);
    expect([0, 2048, 5 * 2 ** 30].map(bytes)).toEqual(['0 B', '2.0 KiB', '5.0 GiB']);
    expect([5, 59_000, 61_000, 3_700_000, 3e8].map(duration)).toEqual(['5 ms', '59 s', '1 min 1 s', '1 h 1 min', '3 d']);
    expect(age('2026-01-01T00:00:00Z', Date.parse('2026-01-01T00:05:10Z'))).toBe('5 min');
    expect(bar(0.5, 16)).toBe('█████░░░░░  50 %');
    expect(padTo('Übergröße', 6)).toBe('Überg…');
    expect(padTo('日本語', 8)).toBe('日本語  ');
    expect(padTo('7', 3, 'right')).toBe('  7');
    // What came from a file does not steer the terminal.
    expect(padTo('a\x1b[31mb', 10)).toBe('a [31mb   ');
    expect(wrap('one two three', 8)).toEqual(['one two', 'three']);
  });
});

test('a job that has evaluated says what to look at first', () => {
  const pair = { class: '3', predictedClass: '5', count: 4 };
  const classifier = { labelErrors: { count: 1 }, bestThreshold: null, confusedPairs: [pair] };
  expect(evaluationText({ top1: 0.975, map5095: null, findings: classifier })).toBe(
    'top-1 0.975; most often 3 taken for 5 (4); 1 likely label error',
  );
  const detector = { labelErrors: null, bestThreshold: { score: 0.31 }, confusedPairs: [{ ...pair, class: null, predictedClass: 'cat' }] };
  expect(evaluationText({ top1: null, map5095: 0.43, findings: detector })).toBe(
    'mAP50-95 0.43; most often cat where nothing is (4); best score threshold 0.31',
  );
  expect(evaluationText({ top1: 0.5, map5095: null, findings: null })).toBe('top-1 0.5');
});
