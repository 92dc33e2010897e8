import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

/** One GPU as nvidia-smi tells of it. A value that the card does not report is null. */
export interface Gpu {
  index: number;
  uuid: string;
  name: string;
  memoryTotalBytes: number | null;
  memoryUsedBytes: number | null;
  utilizationPercent: number | null;
  temperatureCelsius: number | null;
  powerWatts: number | null;
}

export type Gpus = { gpus: Gpu[]; reason: null } | { gpus: null; reason: string };

const fields = ['index', 'uuid', 'name', 'memory.total', 'memory.used', 'utilization.gpu', 'temperature.gpu', 'power.draw'];
const answerMsMax = 5000;
/** A reading is shared while it goes on, and this long after it: many may watch the machine at the same time. */
const sharedMs = 500;
const run = promisify(execFile);

let last: { path: string; reading: Promise<Gpus>; endedAt: number | null } | undefined;

/** The GPUs of this machine, or null with the reason why there are none to be seen. `path` is the PATH that nvidia-smi is looked for in. */
export function readGpus(path: string): Promise<Gpus> {
  if (last?.path === path && (last.endedAt === null || performance.now() - last.endedAt < sharedMs)) return last.reading;
  const next: typeof last = { path, reading: askNvidiaSmi(path), endedAt: null };
  next.reading.then(() => {
    next.endedAt = performance.now();
  });
  last = next;
  return next.reading;
}

async function askNvidiaSmi(path: string): Promise<Gpus> {
  try {
    const query = [`--query-gpu=${fields.join(',')}`, '--format=csv,noheader,nounits'];
    // A signal, for `timeout` waits until the process has ended, and one that hangs in the driver does not.
    const signal = AbortSignal.timeout(answerMsMax);
    const { stdout } = await run('nvidia-smi', query, { signal, killSignal: 'SIGKILL', env: { PATH: path } });
    const gpus = stdout.split('\n').flatMap((line) => parseGpu(line) ?? []);
    return gpus.length > 0 ? { gpus, reason: null } : { gpus: null, reason: 'nvidia-smi lists no GPU.' };
  } catch (error) {
    const { code, stdout, stderr } = error as { code?: unknown; stdout?: string; stderr?: string };
    if (code === 'ENOENT') return { gpus: null, reason: 'nvidia-smi is not installed on this machine.' };
    if (code === 'ABORT_ERR') return { gpus: null, reason: `nvidia-smi gave no answer within ${answerMsMax / 1000} seconds.` };
    // It tells of a driver that it cannot reach on standard output.
    const said = `${stderr ?? ''}\n${stdout ?? ''}`.split('\n').find((line) => line.trim() !== '');
    return { gpus: null, reason: `nvidia-smi failed: ${said?.trim() ?? 'it does not say why.'}` };
  }
}

/** Null for a line that is not one of the query's answer. */
function parseGpu(line: string): Gpu | null {
  const cells = line.split(',').map((cell) => cell.trim());
  if (cells.length !== fields.length) return null;
  const number = (i: number, unit = 1) => {
    const value = Number.parseFloat(cells[i] ?? '');
    return Number.isNaN(value) ? null : value * unit;
  };
  const mebibyte = 1024 * 1024;
  return {
    index: number(0) ?? 0,
    uuid: cells[1] ?? '',
    name: cells[2] ?? '',
    memoryTotalBytes: number(3, mebibyte),
    memoryUsedBytes: number(4, mebibyte),
    utilizationPercent: number(5),
    temperatureCelsius: number(6),
    powerWatts: number(7),
  };
}
