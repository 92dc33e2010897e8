import { getPriority, setPriority } from 'node:os';

/**
 * By how much less than the thread that answers HTTP the others may have of the processor: runs may take every core since they give way to it. Beside two
 * of them its answers take a third of the time. Trainings are at 10.
 */
export const niceOfRuns = 5;

/** For the calling thread. On Linux a priority is a thread's own, and a session's threads inherit it. */
export function giveWay(): void {
  if (process.platform === 'linux') setPriority(Math.min(19, getPriority() + niceOfRuns));
}
