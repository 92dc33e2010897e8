/**
 * How long each part of a stop may take, in milliseconds. Parts that follow one another add up to less than the limit, so that the
 * process ends by itself, with exit code 0, whatever a part waits for.
 */
export const stopMs = {
  /** After this the process exits with 1. */
  limit: 30_000,
  // First, at the same time.
  sockets: 3_000,
  jobs: 24_000,
  inferenceHost: 25_000,
  // Then, one after the other.
  lastAnswers: 2_500,
  connections: 500,
  uploads: 500,
  sweeper: 1_000,
  tracing: 400,
} as const;

/** Of the inference host, one after the other. With its threads it ends before the server kills it. */
export const drainMs = {
  /** After this what still waits is answered with 503. */
  requests: 23_000,
  /** For answers to leave; then connections are closed, whatever they still send. */
  lastAnswers: 1_000,
} as const;

/** Resolves when `part` has ended, or its time is over: `late` is called then. */
export async function within(ms: number, part: Promise<unknown>, late: () => void): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<void>((resolve) => {
    timer = setTimeout(() => {
      late();
      resolve();
    }, ms);
  });
  await Promise.race([part, over]).finally(() => clearTimeout(timer));
}
