import { setImmediate } from 'node:timers/promises';

/**
 * Processor time of this thread in microseconds: all that `run` takes, and the longest stretch of it without a turn of the event loop. And how often the
 * loop has turned meanwhile.
 */
export async function stretchesOf(run: () => Promise<unknown>): Promise<{ longest: number; total: number; turns: number }> {
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
  let longest = 0;
  let turns = 0;
  for (let before = begun; !isDone; ) {
    await setImmediate();
    turns += 1;
    const now = used();
    longest = Math.max(longest, now - before);
    before = now;
  }
  await done;
  return { longest, total: used() - begun, turns };
}
