import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

const long = process.env.npm_lifecycle_event === 'test:long';

/** Vitest begins with the largest files. These are small and take a minute: one of them would run alone at the end. */
const slow = /(training\.jobs|upgrade|models\.attacks|graphiql\.browser|reports\.browser|setup\.script)\.test\.ts$/;
class SlowFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const first = sorted.filter(({ moduleId }) => slow.test(moduleId));
    return [...first, ...sorted.filter((file) => !first.includes(file))];
  }
}

export default defineConfig({
  // Without Vite's `development` condition: graphql would be loaded twice, once as its development build.
  ssr: { resolve: { conditions: ['node', 'module-sync', 'import'], externalConditions: ['node', 'module-sync'] } },
  test: {
    include: [long ? 'test/**/*.long.test.ts' : 'test/**/*.test.ts'],
    exclude: long ? [] : ['test/**/*.long.test.ts'],
    testTimeout: long ? 3_600_000 : 60_000,
    // Vitest leaves a core free: on two it would use one, and take 813 s in place of 609. Three are no faster there. A file that trains
    // takes 1.5 GB.
    maxWorkers: Math.min(8, Math.max(2, availableParallelism() - 1)),
    // Two seconds less for each file, and a tenth of a second for each login.
    setupFiles: ['src/loading.ts', 'test/support/hashing.ts'],
    sequence: { sequencer: SlowFirst },
    hookTimeout: 60_000,
    // Tests have GPUs of their own: those of the machine would be read before them.
    env: { ONNXRUNTIME_NODE_INSTALL: 'skip', WHETSTONE_NVML_LIBRARY: '/nowhere' },
    coverage: {
      // V8's own counts slow every loaded package down: two files took 1.4 and 2 times the processor's time with them, 1.0 and 1.4 with these.
      provider: 'istanbul',
      include: ['src/**/*.ts', 'client/**/*.ts', 'tui/**/*.{ts,tsx}'],
      reporter: ['text-summary'],
      thresholds: { lines: 85 },
    },
  },
});
