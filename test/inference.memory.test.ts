/** What one request with large inputs takes of a host's memory is there again for the others: measured on host processes. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { expect, test } from 'vitest';
import { nodeFlags } from '../src/inference/channel.ts';
import { nativeMissing } from './support/engines.ts';
import { eventually } from './support/eventually.ts';
import { inferJson, withModelFiles } from './support/inference.ts';

const engines = [
  { engine: 'ONNXRUNTIME_CPU', missing: null },
  { engine: 'ONNXRUNTIME_NATIVE', missing: nativeMissing },
];
const mebibyte = 2 ** 20;
/** The run has this many numbers squared in its memory at least once: 400 MB. */
const numbers = 10_000;
const runBytes = 4 * numbers ** 2;

const memoryBytes = (pid: number, field: 'RssAnon' | 'VmRSS' | 'VmHWM'): number =>
  1024 * Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);

test.skipIf(process.platform !== 'linux').for(engines)(
  'after a request of $engine that took 400 MB and more a host has as little as before, and loads the next model',
  async ({ engine, missing }, { skip }) => {
    if (missing !== null) skip(missing);
    const deadlineMs = 60_000;
    const { folder, settings } = await withModelFiles({
      engine,
      memoryBytesMax: 560 * mebibyte,
      models: [
        { name: 'products', dims: { m: 16 }, deadlineMs },
        { name: 'identity', deadlineMs },
      ],
    });
    writeFileSync(join(folder, 'settings.json'), JSON.stringify(settings));
    const program = join(import.meta.dirname, 'support', 'controlledHost.ts');
    const host = fork(program, [folder], { execArgv: nodeFlags, stdio: ['ignore', 'pipe', 'inherit', 'ipc'] });
    const memory = (field: Parameters<typeof memoryBytes>[1]) => memoryBytes(host.pid as number, field);
    try {
      const url = await new Promise<string>((resolve) => {
        createInterface({ input: host.stdout as NonNullable<typeof host.stdout> }).on('line', (line) => {
          if (line.includes('"inference host is ready"')) resolve(JSON.parse(line).url);
        });
      });
      const [before, allBefore] = [memory('RssAnon'), memory('VmRSS')];
      const data = Array(numbers).fill(0.5);
      const { json } = await inferJson(url, 'products', { inputs: [{ name: 'x', datatype: 'FP32', shape: [1, numbers], data }] });
      expect(json.outputs[0].data).toEqual([0.25]);
      // The most that it ever had, as the system has counted it.
      expect(memory('VmHWM') - allBefore).toBeGreaterThan(runBytes);
      await eventually(() => expect(Math.round((memory('RssAnon') - before) / mebibyte)).toBeLessThan(60));
      host.send('next');
      expect((await once(host, 'message'))[0]).toEqual({ problem: null });
    } finally {
      host.kill('SIGKILL');
      await once(host, 'exit');
      rmSync(folder, { recursive: true });
    }
  },
);
