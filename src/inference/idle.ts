/** How long memory that is kept for the next use is kept without one. */
const idleMs = 30_000;

/** Calls `free` when the function that it gives was not called for a while. That does not keep the process alive. */
export function whenIdle(free: () => void): () => void {
  let timer: NodeJS.Timeout | undefined;
  return () => {
    timer ??= setTimeout(free, idleMs).unref();
    timer.refresh();
  };
}
