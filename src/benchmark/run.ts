import { fork } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { linkSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { arch, availableParallelism, cpus, platform, release, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { canonicalJson } from '../canonical.ts';
import { engines } from '../engine/engines.ts';
import { type ChildAttempt, ChildError, type MadeFile } from '../jobs/childio.ts';
import type { BenchmarkSpec } from '../jobs/specs.ts';
import type { CellMessage, CellTask } from './cell.ts';
import { type Cell, CellsFile, type Machine, nothingMeasured, type PlannedCell, planCells } from './cells.ts';
import type { Prepared } from './inputs.ts';
import type { measureCell } from './measure.ts';
import { encodeSamples } from './samples.ts';
import { figuresOf } from './statistics.ts';

/**
 * Measures each cell and leaves in the work folder a samples file for each measured one, and the newest `CellsFile`, which the result
 * names. Cells that an earlier attempt has measured are kept while machine, engine and code are the same.
 */
export async function benchmark(child: ChildAttempt<BenchmarkSpec>): Promise<{ cells: number; file: string }> {
  const { spec } = child;
  const plan = planCells(spec);
  const file: CellsFile = { machine: readMachine(), bootId: readBootId(), codeVersion: spec.codeVersion, cells: earlierCells(child) };
  let made = save(child, file);
  let inputs: { key: string; prepared: Prepared | Problem } | undefined;
  for (const cell of plan.slice(file.cells.length)) {
    child.phase('start', null);
    const reason = await engines[cell.engine].missing(process.env.PATH ?? '');
    const key = `${cell.model} ${cell.batchSize}`;
    if (reason === null && inputs?.key !== key) {
      inputs = { key, prepared: await inProcess<Prepared | Problem>(child, { do: 'prepare', spec, cell }) };
    }
    const prepared = reason === null && inputs ? inputs.prepared : problem('ENGINE_UNAVAILABLE', String(reason));
    const measured = 'problem' in prepared ? prepared : await inProcess<Measured | Problem>(child, { do: 'measure', spec, cell, prepared });
    file.cells.push({
      ...cell,
      engineVersion: engines[cell.engine].version,
      ...('problem' in measured ? unmeasured(measured) : keep(child, cell, measured)),
    });
    made = save(child, file);
  }
  return { cells: plan.length, file: made.name };
}

type Measured = Awaited<ReturnType<typeof measureCell>>;
interface Problem {
  problem: { code: string; message: string };
}

const problem = (code: string, message: string): Problem => ({ problem: { code, message } });
const unmeasured = ({ problem }: Problem) => ({ telemetry: nothingMeasured(problem), samples: null });

/** Longest time in which a process tells nothing: a single inference may take that long. */
const silentMsMax = 300_000;
const lookMs = 100;
/** With less, the disk counts as full. */
const roomBytesMin = 2 ** 20;

/** Runs a step in a process of its own, in this one's group, to its end. One that crashes or tells nothing is a problem of the row. */
async function inProcess<T>(child: ChildAttempt, task: CellTask): Promise<T | Problem> {
  const started = fork(join(import.meta.dirname, 'cell.ts'), { serialization: 'advanced' });
  let result: T | Problem | undefined;
  let toldAt = performance.now();
  const timer = setInterval(() => {
    if (performance.now() - toldAt > silentMsMax)
      result = problem('STALLED', `The engine computed for ${silentMsMax / 1000} s without an end.`);
    if (result || child.stopping()) started.kill('SIGKILL');
  }, lookMs);
  started.on('message', (told: CellMessage) => {
    toldAt = performance.now();
    if ('phase' in told) child.phase(told.phase, told.total);
    else if ('advance' in told) child.advance(told.advance, told.metrics);
    else {
      result = told.result as T;
      started.disconnect();
    }
  });
  started.send(task);
  const [code, signal] = await once(started, 'exit');
  clearInterval(timer);
  child.checkStop();
  const how = signal === 'SIGKILL' ? 'was killed, as the system does when memory runs out' : `ended with ${signal ?? `exit code ${code}`}`;
  const ended = result ?? problem('ENGINE_CRASHED', `The process of the engine ${how}.`);
  // An engine that fails on a full disk does not say why. A later attempt measures this row again.
  if (isProblem(ended) && !hasRoom(child)) throw new ChildError('DISK_FULL', 'The disk is full: free some space.');
  return ended;
}

const isProblem = (ended: unknown): ended is Problem => typeof ended === 'object' && ended !== null && 'problem' in ended;

function hasRoom({ workDir }: ChildAttempt): boolean {
  const { bavail, bsize } = statfsSync(workDir);
  return bavail * bsize > roomBytesMin;
}

/** Writes the samples of a cell. */
function keep(
  child: ChildAttempt,
  { n, model, engine, batchSize, intraOpThreads }: PlannedCell,
  { telemetry, samples }: Measured,
): Pick<Cell, 'telemetry' | 'samples'> {
  if (!samples) return { telemetry, samples: null };
  const written = write(child, `samples-${n}.bin`, encodeSamples(samples));
  const { latencyNs, endNs } = samples;
  const seen = figuresOf(latencyNs, endNs.at(-1) ?? 0, batchSize);
  child.artifact('SAMPLES', written, { n, model, engine, batchSize, intraOpThreads, count: latencyNs.length, ...seen });
  return { telemetry, samples: written };
}

function write({ workDir }: ChildAttempt, name: string, bytes: Uint8Array): MadeFile {
  writeFileSync(join(workDir, name), bytes, { flush: true });
  return { name, sha256: createHash('sha256').update(bytes).digest('hex'), sizeBytes: bytes.byteLength };
}

/** Each has a name of its own: a checkpoint that was reported must not change. */
function save(child: ChildAttempt<BenchmarkSpec>, file: CellsFile): MadeFile {
  const made = write(child, `cells-${file.cells.length}.json`, Buffer.from(canonicalJson(file)));
  if (file.cells.length > 0) child.checkpoint(made, file.cells.length);
  return made;
}

/** The cells of an earlier attempt, with their samples in this attempt's folder. */
function earlierCells({ spec, workDir }: ChildAttempt<BenchmarkSpec>): Cell[] {
  const { resumeFrom, codeVersion } = spec;
  if (resumeFrom === null) return [];
  const file = CellsFile.parse(JSON.parse(readFileSync(resumeFrom, 'utf8')));
  const same =
    file.bootId === readBootId() &&
    file.codeVersion === codeVersion &&
    canonicalJson(file.machine) === canonicalJson(readMachine()) &&
    file.cells.every(({ engine, engineVersion }) => engineVersion === engines[engine].version);
  if (!same) return [];
  for (const { samples } of file.cells) {
    if (!samples) continue;
    rmSync(join(workDir, samples.name), { force: true });
    linkSync(join(dirname(resumeFrom), samples.name), join(workDir, samples.name));
  }
  return file.cells;
}

function readMachine(): Machine {
  return {
    processor: cpus()[0]?.model ?? arch(),
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    platform: platform(),
    arch: arch(),
    kernel: release(),
    node: process.versions.node,
  };
}

function readBootId(): string | null {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return null;
  }
}
