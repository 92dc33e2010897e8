import type { Event } from './protocol.ts';

/** A tick of progress: the latest counts, earlier ones are worth nothing. */
export type Progress = Extract<Event, { type: 'batch' }>;

/** A line that a job's child wrote to its standard output or error. */
export interface LogLine {
  /** Number of the line within the job, from 1. */
  n: number;
  at: number;
  attemptNumber: number;
  stream: 'stdout' | 'stderr';
  text: string;
}
