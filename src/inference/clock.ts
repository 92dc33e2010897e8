/** Milliseconds of a clock that never jumps and is the same in every thread of the process (`performance.now()` is not). */
export const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6;
