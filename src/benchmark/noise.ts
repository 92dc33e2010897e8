/** What else the machine did during a measurement. */
import { readdirSync, readFileSync } from 'node:fs';
import type { Telemetry } from './cells.ts';

type Noise = NonNullable<Telemetry['noise']>;

/** Counters that only grow; null where the system has none. */
interface Reading {
  /** Clock ticks of all processors, from /proc/stat (proc(5)). */
  cpu: { total: number; busy: number; steal: number; cores: number } | null;
  /** Periods of the control group's quota. */
  periods: { total: number; throttled: number } | null;
  /** Microseconds of this process, all of its threads. */
  ownUs: number;
  /** Nanoseconds that its threads were ready and had no processor, from their `schedstat` (the kernel's sched-stats document). */
  waitedNs: number | null;
  /** Of the steady clock. */
  atNs: number;
}

const ticksPerSecond = 100;

export function readNoise(root = ''): Reading {
  const { user, system } = process.cpuUsage();
  return {
    cpu: parseStat(read(`${root}/proc/stat`)),
    periods: readPeriods(root),
    ownUs: user + system,
    waitedNs: readWaited(`${root}/proc/self/task`),
    atNs: Number(process.hrtime.bigint()),
  };
}

/** Null where the kernel does not count it. A thread that ends meanwhile is left out. */
function readWaited(folder: string): number | null {
  const threads = list(folder).flatMap((thread) => read(`${folder}/${thread}/schedstat`) ?? []);
  return threads.length === 0 ? null : threads.reduce((sum, text) => sum + Number(text.split(' ')[1]), 0);
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function read(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}

function parseStat(text: string | null): Reading['cpu'] {
  const line = text?.split('\n', 1)[0];
  if (!text || !line?.startsWith('cpu ')) return null;
  const [user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0] = line
    .trim()
    .split(/\s+/)
    .slice(1)
    .map(Number);
  const busy = user + nice + system + irq + softirq;
  return { total: busy + idle + iowait + steal, busy, steal, cores: text.match(/^cpu\d/gm)?.length ?? 1 };
}

/** Of the control group that this process is in, version 2 or 1. A group without a quota has no periods. */
function readPeriods(root: string): Reading['periods'] {
  const groups = (read(`${root}/proc/self/cgroup`) ?? '').split('\n').map((line) => line.split(':'));
  const folders = groups.flatMap(([, controllers, path = '']) => {
    if (controllers === '') return [`/sys/fs/cgroup${path}`, '/sys/fs/cgroup'];
    return controllers?.split(',').includes('cpu') ? [`/sys/fs/cgroup/cpu${path}`, '/sys/fs/cgroup/cpu'] : [];
  });
  const text = folders.map((folder) => read(`${root}${folder}/cpu.stat`)).find((found) => found !== null);
  if (!text) return null;
  const value = (name: string) => Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(text)?.[1] ?? 0);
  return { total: value('nr_periods'), throttled: value('nr_throttled') };
}

/** `threads`: how many the measurement computed with. */
export function noiseBetween(before: Reading, after: Reading, threads: number): Noise {
  const throttled =
    before.periods && after.periods
      ? ratio(after.periods.throttled - before.periods.throttled, after.periods.total - before.periods.total)
      : null;
  if (!before.cpu || !after.cpu) return { steal: null, throttled, contention: null };
  const { cores } = after.cpu;
  const total = after.cpu.total - before.cpu.total;
  const steal = ratio(after.cpu.steal - before.cpu.steal, total);
  // More threads than processors wait for each other: what others used is then known from the ticks alone.
  if (threads <= cores && before.waitedNs !== null && after.waitedNs !== null) {
    return { steal, throttled, contention: ratio(after.waitedNs - before.waitedNs, threads * (after.atNs - before.atNs)) };
  }
  const others = after.cpu.busy - before.cpu.busy - ((after.ownUs - before.ownUs) / 1e6) * ticksPerSecond;
  // Others may use what the measurement leaves them.
  const taken = ratio(others, total) * cores - Math.max(0, cores - threads);
  return { steal, throttled, contention: ratio(taken, Math.min(threads, cores)) };
}

const ratio = (part: number, whole: number): number => (whole > 0 ? Math.max(0, part / whole) : 0);

/** From which share on what others did in a block moves its P95: 1 % of waiting meets 4 of 100 inferences, since two take turns and two threads share it. */
const disturbedAbove: Record<keyof Noise, number> = { steal: 0.02, throttled: 0.01, contention: 0.01 };

export const isDisturbed = (noise: Noise): boolean =>
  Object.entries(disturbedAbove).some(([name, limit]) => (noise[name as keyof Noise] ?? 0) > limit);
