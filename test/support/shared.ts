import { afterAll, beforeAll } from 'vitest';
import type { JobKinds } from '../../src/jobs/kinds.ts';
import { type TestServer, withServer } from './server.ts';

/** One server for all tests of a file, given to `use` before the first; stopped after the last. */
export function withSharedServer(use: (server: TestServer) => void, env: Record<string, string> = {}, kinds?: JobKinds): void {
  const finished = Promise.withResolvers<void>();
  let stopped: Promise<void>;
  beforeAll(async () => {
    const started = Promise.withResolvers<TestServer>();
    stopped = withServer(
      async (running) => {
        started.resolve(running);
        await finished.promise;
      },
      env,
      kinds,
    );
    use(await Promise.race([started.promise, stopped.then(() => Promise.reject(new Error('The server stopped.')))]));
  });
  afterAll(async () => {
    finished.resolve();
    await stopped;
  });
}
