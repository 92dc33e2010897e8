import { describe, expect, test } from 'vitest';
import { inTransaction, openDatabase } from '../src/db.ts';
import { insertHyperparameters } from '../src/jobs/references.ts';
import { job } from '../src/jobs/tables.ts';
import { compilerProblem, requireCompilable } from '../src/training/compile.ts';
import { trainedWith } from '../src/training/search.ts';
import { trainingOf } from '../src/training/train.ts';
import { settingsOf } from '../src/tuning/settings.ts';
import { withFolder } from './support/server.ts';

const on = (env: Record<string, string>) => ({
  config: { childEnv: { PATH: process.env.PATH, ...env } } as unknown as Parameters<typeof compilerProblem>[0]['config'],
});

describe('a training whose model is compiled', () => {
  test('is refused where the machine has no compiler, and says what to install', async () => {
    const problem = await compilerProblem(on({ CXX: 'no-such-compiler' }), 'cpu');
    expect(problem).toContain('A C++ compiler is missing on the server (no-such-compiler). Install one');
    expect(() => requireCompilable({ compile: true }, 'hyperparameters', 1, problem)).toThrow(
      'compile is true, which this machine cannot do.',
    );
    expect(() => requireCompilable({ compile: false }, 'hyperparameters', 1, problem)).not.toThrow();
  });

  test('is not refused where a compiler can be started', async () => {
    expect(await compilerProblem(on({ CXX: process.execPath }), 'cpu')).toBeNull();
  });

  test('is refused for several processes, and for image sizes that change, also in a study', () => {
    expect(() => requireCompilable({ compile: true }, 'hyperparameters', 2, null)).toThrow(
      'compile is true, and 2 processes train together',
    );
    const problem = 'compile is true and multiScale is 0.5, but the model is compiled for one image size.';
    expect(() => trainingOf('yolov8n', { compile: true, multiScale: 0.5 }, {})).toThrow(problem);
    const asked = {
      preset: 'resnet18',
      sampler: 'RANDOM',
      population: 4,
      seed: 0,
      registerMax: 1,
      init: { from: 'SCRATCH' },
      device: 'cpu',
    };
    const study = (fixed: object, dimension: object) => settingsOf({ ...asked, fixed, space: [dimension] } as never, 1, []);
    expect(() => study({ compile: true }, { name: 'multiScale', low: 0, high: 0.5 })).toThrow(problem);
    expect(() => study({ multiScale: 0.5 }, { name: 'compile', choices: [false, true] })).toThrow(problem);
    expect(() => study({}, { name: 'compile', low: 0, high: 1 })).toThrow('compile takes true or false: say the `choices`.');
    expect(study({ compile: true }, { name: 'learningRate', low: 0.1, high: 0.2 }).fixed).toEqual({ compile: true });
  });

  test('has it in its specification, and is found by it', async () => {
    const { hyperparameters } = trainingOf('resnet18', { compile: true }, {});
    expect(hyperparameters).toMatchObject({ compile: true });
    await withFolder(async (folder) => {
      const { db, close } = openDatabase(folder);
      inTransaction(db, (tx) => {
        const one = { kind: 'TRAIN', state: 'QUEUED', specJson: {}, slotsNeeded: 1, priority: 0, createdAt: 0 } as const;
        tx.insert(job)
          .values([
            { id: 'compiled', ...one },
            { id: 'plain', ...one },
          ])
          .run();
        insertHyperparameters(tx, 'compiled', { hyperparameters });
        insertHyperparameters(tx, 'plain', trainingOf('resnet18', {}, {}));
      });
      const found = (value: boolean) => {
        const [condition] = trainedWith({ hyperparameters: [{ name: 'compile', operator: 'EQUAL', value }] });
        return db
          .select({ id: job.id })
          .from(job)
          .where(condition?.(job.id))
          .all()
          .map(({ id }) => id);
      };
      expect([found(true), found(false)]).toEqual([['compiled'], ['plain']]);
      close();
    });
  });
});
