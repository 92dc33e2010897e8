import { vi } from 'vitest';

/** Waits until `check` passes; a machine that is busy with other things may take its time. */
export const eventually = <T>(check: () => T | Promise<T>): Promise<T> => vi.waitFor(check, { timeout: 30_000, interval: 5 });
