/**
 * The protocol between the server and the child process of a job attempt. This file is its source: `scripts/protocol.ts`
 * writes `trainer/protocol.schema.json` from it, and the trainer checks against that file.
 *
 * stdin   first one `SpecLine`, then a `CommandLine` for each command; the child kills its process group when stdin closes
 * fd 3    one `Event` a line, `hello` first and `done` or `error` last; stdout and stderr are logs only
 *
 * Files go in as absolute paths of things that the child only reads, and come out as names inside `workDir`.
 * An attempt has succeeded when it said `done{status: ok}` AND exited with 0.
 */
import { Buffer } from 'node:buffer';
import { z } from 'zod';
import { GateNumbers } from '../training/gates.ts';
import { Spec } from './specs.ts';

export const PROTOCOL_VERSION = 1;

/** Longest event line in bytes, line feed included. What may be larger goes into an artifact file. */
export const EVENT_LINE_BYTES_MAX = 64 * 1024;

export const exitCodes = {
  OK: 0,
  /** The specification or the command line is wrong. */
  SPECIFICATION: 64,
  /** The data, the weights or the model file is wrong, or training on it diverged. */
  DATA: 65,
  /** Something this machine lacks: a package, a device, memory, weights that cannot be downloaded. */
  UNAVAILABLE: 69,
  /** A bug in the child. */
  BUG: 70,
  /** Input or output failed, or a process that trains with it has died. A crash, so the job is tried again, unless the disk was full. */
  IO: 74,
  /** Stopped at a checkpoint by `cancel` or `suspend`. */
  STOPPED: 75,
} as const;

/** Each phase and the longest time its step may stand still before the attempt is taken for hung. */
export const phases = {
  start: { stallMsMax: 300_000 },
  weights: { stallMsMax: 600_000 },
  caching: { stallMsMax: 120_000 },
  /** Its step moves with each compiled kernel. */
  compilation: { stallMsMax: 900_000 },
  training: { stallMsMax: 600_000 },
  validation: { stallMsMax: 600_000 },
  export: { stallMsMax: 900_000 },
  calibration: { stallMsMax: 600_000 },
  ranking: { stallMsMax: 600_000 },
  gate: { stallMsMax: 600_000 },
  evaluation: { stallMsMax: 600_000 },
  matching: { stallMsMax: 600_000 },
  inspection: { stallMsMax: 300_000 },
  extraction: { stallMsMax: 120_000 },
  decoding: { stallMsMax: 120_000 },
  warmup: { stallMsMax: 600_000 },
  measurement: { stallMsMax: 600_000 },
  proposal: { stallMsMax: 300_000 },
} as const;
export type Phase = keyof typeof phases;
const PhaseName = z.enum(Object.keys(phases) as [Phase, ...Phase[]]);

/** Closed list of the codes of `error` events, with the exit code that follows each. */
export const trainerErrorCodes = {
  SPEC_INVALID: exitCodes.SPECIFICATION,
  DATA_INVALID: exitCodes.DATA,
  MODEL_INVALID: exitCodes.DATA,
  MODEL_UNSAFE: exitCodes.DATA,
  WEIGHTS_INVALID: exitCodes.DATA,
  LIMIT_EXCEEDED: exitCodes.DATA,
  DIVERGED: exitCodes.DATA,
  WEIGHTS_UNAVAILABLE: exitCodes.UNAVAILABLE,
  DEVICE_UNAVAILABLE: exitCodes.UNAVAILABLE,
  EXTRA_MISSING: exitCodes.UNAVAILABLE,
  OUT_OF_MEMORY: exitCodes.UNAVAILABLE,
  /** What torch.compile needs at run time: a compiler, Python's headers, Triton. */
  COMPILER_MISSING: exitCodes.UNAVAILABLE,
  EXPORT_FAILED: exitCodes.BUG,
  COMPILE_FAILED: exitCodes.BUG,
  INTERNAL: exitCodes.BUG,
  IO: exitCodes.IO,
  /** One of several processes was killed: a crash, as if the only one had been. */
  PROCESS_DIED: exitCodes.IO,
  /** Uncharged, unlike IO: the job is tried again until there is room. */
  DISK_FULL: exitCodes.IO,
} as const;
export type TrainerErrorCode = keyof typeof trainerErrorCodes;

// ---------------------------------------------------------------------------------------------------------- stdin

export const SpecLine = z
  .object({
    v: z.literal(PROTOCOL_VERSION),
    job: z.string().min(1).max(100),
    attempt: z.int().min(1).describe('The fence: lines of any other attempt are dropped.'),
    workDir: z.string().min(1).describe('Absolute path of the attempt’s own folder, empty or of an earlier try of this attempt.'),
    spec: Spec,
  })
  .meta({ id: 'SpecLine', description: 'The first line on stdin.' });
export type SpecLine = z.infer<typeof SpecLine>;

export const CommandLine = z
  .object({
    v: z.literal(PROTOCOL_VERSION),
    command: z
      .enum(['cancel', 'suspend'])
      .describe('Both write a checkpoint at the next batch boundary and exit 75; a suspended job goes back into the queue.'),
  })
  .meta({ id: 'CommandLine', description: 'Each later line on stdin.' });
export type CommandLine = z.infer<typeof CommandLine>;

// ----------------------------------------------------------------------------------------------------------- fd 3

const envelope = {
  v: z.literal(PROTOCOL_VERSION),
  job: z.string().min(1).max(100),
  attempt: z.int().min(1),
  n: z.int().min(1).describe('Counts this attempt’s lines from 1, without gaps.'),
  t: z.int().min(0).describe('Unix milliseconds UTC, for people: order is by n.'),
};
const json = z.record(z.string(), z.json());
const fileName = z
  .string()
  .min(1)
  .max(255)
  .regex(/^[^/\\\0]+$/)
  .describe('A name inside workDir.');
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const text = z.string().max(4000);
const step = z.int().min(0).describe('Counts units of work of this attempt in any phase. Only its movement has a meaning.');
const metrics = z.record(z.string().max(100), z.number()).describe('Finite numbers by metric name, such as `val.top1`.');

const Hello = z
  .object({
    ...envelope,
    type: z.literal('hello'),
    pid: z.int().min(1),
    device: z.object({
      type: z.enum(['cpu', 'cuda']),
      name: z.string().max(200),
      memoryBytes: z.int().nullable().describe('Null for a CPU.'),
    }),
    versions: z.record(z.string(), z.string()).describe('Version by package; `python` or `node` for the runtime.'),
    environment: json.describe('Platform, processor, threads, code version: recorded with the attempt.'),
    resumed: z.object({ epoch: z.int(), batch: z.int() }).nullable().describe('Where a checkpoint lets this attempt continue.'),
  })
  .meta({ id: 'Hello' });

const PhaseStarted = z
  .object({
    ...envelope,
    type: z.literal('phase'),
    phase: PhaseName,
    total: z.int().min(0).nullable().describe('Units of work in this phase, null where unknown.'),
  })
  .meta({ id: 'PhaseStarted' });

const Batch = z
  .object({
    ...envelope,
    type: z.literal('batch'),
    phase: PhaseName,
    step,
    done: z.int().min(0).describe('Units of this phase (batches, images, bytes) that are done.'),
    total: z.int().min(0).nullable(),
    epoch: z.int().min(1).nullable().describe('The epoch that is running, counted from 1.'),
    epochs: z.int().min(1).nullable(),
    metrics,
    itemsPerSecond: z.number().min(0).nullable(),
    etaMs: z.int().min(0).nullable().describe('Until the end of the last epoch, at the current speed.'),
  })
  .meta({ id: 'Batch', description: 'A tick of progress, at most 4 a second: latest wins, never stored.' });

const Epoch = z
  .object({
    ...envelope,
    type: z.literal('epoch'),
    epoch: z.int().min(1).describe('The epoch that ended, counted from 1.'),
    epochs: z.int().min(1),
    step: z.int().min(0).describe('Optimizer steps so far: the x of every curve. A resumed epoch repeats it exactly.'),
    metrics,
    best: z.boolean().describe('No earlier epoch of this job had a better validation result.'),
    durationMs: z.int().min(0),
  })
  .meta({ id: 'Epoch' });

const Checkpoint = z
  .object({
    ...envelope,
    type: z.literal('checkpoint'),
    file: fileName,
    sha256,
    sizeBytes: z.int().min(0),
    epoch: z.int().min(0).describe('Complete epochs in it.'),
    batch: z.int().min(0).describe('Batches of the next epoch in it.'),
  })
  .meta({ id: 'Checkpoint', description: 'Written, fsynced and in place. The last two are kept, older names are gone.' });

export const ArtifactKind = z.enum(['WEIGHTS', 'CHECKPOINT', 'ONNX', 'PROBE', 'EVALUATION', 'MANIFEST', 'THUMBNAILS', 'IMAGES', 'SAMPLES']);

const Artifact = z
  .object({
    ...envelope,
    type: z.literal('artifact'),
    kind: ArtifactKind,
    file: fileName.nullable().describe('Null: the file that the spec named, unchanged.'),
    sha256,
    sizeBytes: z.int().min(0),
    meta: json.describe('WEIGHTS: WeightsMeta. ONNX: OnnxMeta. Other kinds: see the result of the job kind.'),
  })
  .meta({ id: 'Artifact' });

const Gate = z
  .object({
    ...envelope,
    type: z.literal('gate'),
    gate: z.enum(['CONVERSION', 'COMPRESSION']),
    file: fileName.describe('The candidate.'),
    numbers: GateNumbers,
  })
  .meta({ id: 'Gate', description: 'Numbers, not a verdict: the server’s table of thresholds decides.' });

const Heartbeat = z
  .object({
    ...envelope,
    type: z.literal('heartbeat'),
    phase: PhaseName,
    step,
    rssBytes: z.int().min(0).nullable(),
  })
  .meta({ id: 'Heartbeat', description: 'Every 5 s from a thread of its own: a loop that hangs shows as a step that stands still.' });

const Warning = z
  .object({
    ...envelope,
    type: z.literal('warning'),
    code: z.string().regex(/^[A-Z0-9_]{1,50}$/),
    message: text,
  })
  .meta({ id: 'Warning' });

const ErrorEvent = z
  .object({
    ...envelope,
    type: z.literal('error'),
    code: z.enum(Object.keys(trainerErrorCodes) as [TrainerErrorCode, ...TrainerErrorCode[]]),
    message: text.describe('What is wrong and what to do, without absolute paths.'),
    retryable: z.boolean(),
    hint: text.nullable(),
    details: z.array(z.string().max(500)).max(50).describe('Each file or tensor concerned, up to a limit.'),
  })
  .meta({ id: 'Error' });

const Done = z
  .object({
    ...envelope,
    type: z.literal('done'),
    status: z.enum(['ok', 'cancelled', 'suspended']),
    result: json.describe('The result of the job kind, empty unless status is ok.'),
  })
  .meta({ id: 'Done' });

export const Event = z
  .discriminatedUnion('type', [Hello, PhaseStarted, Batch, Epoch, Checkpoint, Artifact, Gate, Heartbeat, Warning, ErrorEvent, Done])
  .meta({ id: 'Event', description: 'Each line on fd 3.' });
export type Event = z.infer<typeof Event>;

/** Reads one line of fd 3. Unknown fields are dropped; an unknown version, an over-long line or a wrong shape is a problem. */
export function parseEventLine(line: string): Event | { problem: string } {
  if (Buffer.byteLength(line) >= EVENT_LINE_BYTES_MAX) return { problem: `line longer than ${EVENT_LINE_BYTES_MAX} bytes` };
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return { problem: 'line is not JSON' };
  }
  const version = z.object({ v: z.unknown() }).safeParse(value);
  if (!version.success) return { problem: 'line is not an object with a version' };
  if (version.data.v !== PROTOCOL_VERSION) {
    return { problem: `protocol version ${JSON.stringify(version.data.v)?.slice(0, 20)}, expected ${PROTOCOL_VERSION}` };
  }
  const parsed = Event.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  return { problem: `${issue?.path.join('.') || 'line'}: ${issue?.message ?? 'invalid'}`.slice(0, 500) };
}
