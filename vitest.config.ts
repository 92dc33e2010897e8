import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

const long = process.env.npm_lifecycle_event === 'test:long';

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
    // Two seconds less for each file.
    setupFiles: ['src/loading.ts'],
    // A machine that is busy with something else lets a race of two processes go the other way once; what fails twice is broken.
    retry: long ? 0 : 1,
    hookTimeout: 60_000,
    env: { ONNXRUNTIME_NODE_INSTALL: 'skip' },
    coverage: { provider: 'v8', include: ['src/**/*.ts'], reporter: ['text-summary'], thresholds: { lines: 80 } },
  },
});
