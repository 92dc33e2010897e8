import { realpathSync } from 'node:fs';
import { join } from 'node:path';
import { limited } from '../../jobs/limited.ts';
import type { ImportDatasetSpec } from '../../jobs/specs.ts';
import { decodersMax } from './layout.ts';

const project = join(import.meta.dirname, '..', '..', '..');
const program = join(import.meta.dirname, 'child.ts');

/** What a Node process with a worker thread has of its own before it has done anything (1.4 GB), and a little. */
const startMemoryBytes = 1.5 * 2 ** 30;

/** Longest that an import may take; 200,000 photographs of 5 megapixels take about 2 hours on 2 cores. */
export const importTimeLimitMs = 12 * 3600_000;

/**
 * The command of the import's child: under `ulimit`, and with Node's permission model, so that its code can write nothing but
 * `workDir` and read nothing but that, the zip and the program. With the manifest of an earlier import it only finds its images in the zip.
 */
export function importCommand(
  { file, cpuThreads, limits }: ImportDatasetSpec,
  workDir: string,
  manifest?: string,
): { command: string; args: string[]; env: Record<string, string> } {
  const threads = Math.min(cpuThreads, decodersMax);
  // Not the whole project: the data folder may be in it.
  const code = ['src', 'package.json', 'node_modules'].map((name) => realpathSync(join(project, name)));
  const readable = [...code, ...[file, ...(manifest ? [manifest] : [])].flatMap((path) => [realpathSync(path), path]), workDir];
  const node = [
    '--permission',
    // Node's own limit is a quarter of the machine's memory: too little for what is known of two million images.
    `--max-old-space-size=${Math.floor(limits.memoryBytesMax / 2 ** 20)}`,
    // sharp is an addon; the thread that speaks with the server is a worker. Neither can start a process.
    '--allow-addons',
    '--allow-worker',
    '--disable-warning=SecurityWarning',
    ...readable.map((path) => `--allow-fs-read=${path}`),
    `--allow-fs-write=${workDir}`,
  ];
  const command = limited(process.execPath, [...node, program, ...(manifest ? ['--index-only', manifest] : [])], {
    memoryBytes: startMemoryBytes + limits.memoryBytesMax,
    cpuSeconds: (importTimeLimitMs / 1000) * (threads + 1),
    fileBytes: limits.outputBytesMax,
  });
  // sharp decodes on libuv's threads.
  return { ...command, env: { UV_THREADPOOL_SIZE: String(threads) } };
}
