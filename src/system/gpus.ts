import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { findNvml, nativeAddon } from '../engine/libraries.ts';
import type { Log } from '../log.ts';
import { maskPaths } from '../maskPaths.ts';
import { type ThrottleReason, throttleReasonsOf } from './throttling.ts';

/** One GPU as its driver describes it. A value that the card does not report is null. */
export interface Gpu {
  index: number;
  uuid: string;
  name: string;
  memoryTotalBytes: number | null;
  memoryUsedBytes: number | null;
  utilizationPercent: number | null;
  temperatureCelsius: number | null;
  powerWatts: number | null;
  /** nvidia-smi is not asked for them, since their name differs between its versions. */
  throttleReasons: ThrottleReason[] | null;
}

/** What `nvml.ts` prints: the GPUs as the addon has them. */
export type NvmlAnswer =
  | { gpus: (Omit<Gpu, 'powerWatts' | 'throttleReasons'> & { powerMilliwatts: number | null; throttleReasons: number | null })[] }
  | { reason: string };

export type Gpus = { gpus: Gpu[]; reason: null } | { gpus: null; reason: string };

const fields = ['index', 'uuid', 'name', 'memory.total', 'memory.used', 'utilization.gpu', 'temperature.gpu', 'power.draw'];
const answerMsMax = 5000;
/** A reading is shared while it runs, and this long after it: many may watch the machine at the same time. */
const sharedMs = 500;
const run = promisify(execFile);

/** The only reason that is final: any other may pass, such as a driver that is slow or not loaded yet. */
const notInstalled = 'nvidia-smi is not installed on this machine.';
/** Until a GPU is known, it is looked for again after this long, each time twice as long. */
const askAgainMs = { first: 5000, most: 300_000 };

/** They learn from every reading with their PATH: whoever sees a GPU sees one that jobs get. */
const watches = new Set<{ path: string; learn(reading: Gpus): void }>();

let last: { path: string; reading: Promise<Gpus>; endedAt: number | null } | undefined;

/**
 * The GPUs of this machine, or null with the reason why there are none to be seen. NVML is asked where it is there and the native runtime is built,
 * otherwise nvidia-smi, which `path` is the PATH to look for in.
 */
export function readGpus(path: string): Promise<Gpus> {
  if (last?.path === path && (last.endedAt === null || performance.now() - last.endedAt < sharedMs)) return last.reading;
  const library = existsSync(nativeAddon) ? findNvml() : null;
  const next: typeof last = { path, reading: library ? askNvml(library, path) : askNvidiaSmi(path), endedAt: null };
  next.reading.then((reading) => {
    next.endedAt = performance.now();
    for (const watch of watches) if (watch.path === path) watch.learn(reading);
  });
  last = next;
  return next.reading;
}

/** What an attempt has of the GPUs. */
export interface GpuShare {
  /** Its CUDA_VISIBLE_DEVICES. */
  devices: string;
  /** Why a job with a slot has no GPU; null where it has one, or has no slot. */
  missing: string | null;
  /** Whether the machine may have a GPU all the same. */
  maybe: boolean;
}

export interface GpuWatch {
  /** What jobs have at present. A GPU that was seen stays known while the driver does not answer. */
  state(): { known: Gpus; askedAgainAt: number | null };
  /** The share of a job that holds these slots: slot i has GPU i modulo their number. */
  of(slots: number[]): GpuShare;
  stop(): void;
}

/** Learns from every reading of the GPUs, and reads them again until one is known: a driver that is slow at the start would leave every job on the CPU. */
export async function watchGpus(path: string, log: Log): Promise<GpuWatch> {
  let timer: NodeJS.Timeout | undefined;
  let askedAgainAt: number | null = null;
  let known: Gpus = { gpus: null, reason: 'The driver has not been asked yet.' };
  const learn = (reading: Gpus) => {
    if (known.gpus) return;
    known = reading;
    if (!known.gpus) return;
    log.info({ gpus: known.gpus.map(({ name }) => name) }, 'GPUs are known');
    clearTimeout(timer);
    askedAgainAt = null;
  };
  const watching = { path, learn };
  watches.add(watching);
  const askAgainIn = (waitMs: number) => {
    if (!watches.has(watching) || known.gpus || known.reason === notInstalled) return;
    log.warn({ reason: known.reason, askAgainMs: waitMs }, 'No GPU is known: jobs run on the CPU until one is found.');
    askedAgainAt = Date.now() + waitMs;
    timer = setTimeout(async () => {
      askedAgainAt = null;
      await readGpus(path);
      askAgainIn(Math.min(askAgainMs.most, 2 * waitMs));
    }, waitMs);
  };
  await readGpus(path);
  askAgainIn(askAgainMs.first);
  return {
    state: () => ({ known, askedAgainAt }),
    of(slots) {
      const { gpus, reason } = known;
      // Two slots may share a GPU; CUDA refuses a list that names one twice.
      const devices = gpus ? [...new Set(slots.map((n) => gpus[n % gpus.length]?.uuid))].join(',') : '';
      return { devices, missing: slots.length > 0 ? reason : null, maybe: reason !== notInstalled };
    },
    stop() {
      watches.delete(watching);
      clearTimeout(timer);
    },
  };
}

/** What the program prints. Rejects with ABORT_ERR where it takes too long: `timeout` waits until it has ended, and what hangs in the driver does not. */
async function printed(program: string, args: string[], path: string): Promise<string> {
  const signal = AbortSignal.timeout(answerMsMax);
  return (await run(program, args, { signal, killSignal: 'SIGKILL', env: { PATH: path } })).stdout;
}

async function askNvml(library: string, path: string): Promise<Gpus> {
  try {
    const answer: NvmlAnswer = JSON.parse(await printed(process.execPath, [join(import.meta.dirname, 'nvml.ts'), library], path));
    if ('reason' in answer) return { gpus: null, reason: maskPaths(answer.reason) };
    const gpus = answer.gpus.map(({ powerMilliwatts, throttleReasons, ...gpu }) => ({
      ...gpu,
      powerWatts: powerMilliwatts === null ? null : powerMilliwatts / 1000,
      throttleReasons: throttleReasonsOf(throttleReasons),
    }));
    return { gpus, reason: null };
  } catch (error) {
    if ((error as { code?: unknown }).code === 'ABORT_ERR')
      return { gpus: null, reason: `NVML gave no answer within ${answerMsMax / 1000} seconds.` };
    return { gpus: null, reason: 'The process that asks NVML crashed: reinstall the NVIDIA driver, or set WHETSTONE_NVML_LIBRARY.' };
  }
}

async function askNvidiaSmi(path: string): Promise<Gpus> {
  try {
    const stdout = await printed('nvidia-smi', [`--query-gpu=${fields.join(',')}`, '--format=csv,noheader,nounits'], path);
    const gpus = stdout.split('\n').flatMap((line) => parseGpu(line) ?? []);
    return gpus.length > 0 ? { gpus, reason: null } : { gpus: null, reason: 'nvidia-smi lists no GPU.' };
  } catch (error) {
    const { code, stdout, stderr } = error as { code?: unknown; stdout?: string; stderr?: string };
    if (code === 'ENOENT') return { gpus: null, reason: notInstalled };
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
    throttleReasons: null,
  };
}
