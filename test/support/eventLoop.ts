import { PerformanceObserver } from 'node:perf_hooks';
import { setImmediate } from 'node:timers/promises';

interface Stretches {
  /** The longest stretch without a turn of the event loop. */
  longest: number;
  /** The same, without what the collector of garbage took of each. */
  longestOfWork: number;
  /** All that was taken. */
  total: number;
  /** How often the event loop has turned. */
  turns: number;
}

/** Processor time of this thread in microseconds that `run` takes. */
export async function stretchesOf(run: () => Promise<unknown>): Promise<Stretches> {
  const collections: { startTime: number; duration: number }[] = [];
  const observer = new PerformanceObserver((list) => collections.push(...list.getEntries()));
  observer.observe({ entryTypes: ['gc'] });
  const used = () => {
    const { user, system } = process.threadCpuUsage();
    return user + system;
  };
  await setImmediate();
  const begun = used();
  let isDone = false;
  const done = run().finally(() => {
    isDone = true;
  });
  const stretches: { from: number; to: number; used: number }[] = [];
  for (let [before, from] = [begun, performance.now()]; !isDone; ) {
    await setImmediate();
    const [now, to] = [used(), performance.now()];
    stretches.push({ from, to, used: now - before });
    [before, from] = [now, to];
  }
  await done;
  const total = used() - begun;
  await setImmediate();
  observer.disconnect();
  let [longest, longestOfWork] = [0, 0];
  for (const stretch of stretches) {
    const within = collections.filter(({ startTime }) => startTime >= stretch.from && startTime < stretch.to);
    const collecting = within.reduce((sum, { duration }) => sum + duration * 1000, 0);
    longest = Math.max(longest, stretch.used);
    longestOfWork = Math.max(longestOfWork, stretch.used - collecting);
  }
  return { longest, longestOfWork, total, turns: stretches.length };
}
