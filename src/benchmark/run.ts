import { fork } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { appendFileSync, readFileSync, statfsSync, writeFileSync } from 'node:fs';
import { arch, availableParallelism, cpus, freemem, platform, release, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { canonicalJson } from '../canonical.ts';
import { engines } from '../engine/engines.ts';
import { type ChildAttempt, ChildError, type MadeFile } from '../jobs/childio.ts';
import type { BenchmarkSpec } from '../jobs/specs.ts';
import type { CellMessage, CellStep } from './cell.ts';
import {
  type BlockSummary,
  type Cell,
  CellsFile,
  type Machine,
  nothingMeasured,
  type PlannedCell,
  planCells,
  type Telemetry,
} from './cells.ts';
import { type Contest, contestOf } from './contest.ts';
import type { Prepared } from './inputs.ts';
import type { Block, Use } from './measure.ts';
import { isDisturbed } from './noise.ts';
import { type RoundStatistics, roundsOf } from './pairing.ts';
import { decodeSamples, encodeSamples, joinSamples, type RawSamples, samplesBytes } from './samples.ts';

/** Cells that are loaded at a time, and the share of the machine's memory that they must leave. The others are measured after them. */
const loadedMax = 32;
const memoryShareFree = 0.2;
/** A measurement of the shortest length has this many rounds, or more, and one of the greatest length at most so many. */
const roundsMin = 10;
const roundsMax = 300;

/**
 * Measures all cells in rounds: each round measures every cell once, one after the other, in an order that the seed shuffles. What the
 * machine does meanwhile then meets all of them alike, and they are compared within rounds. Cells that may be the best are measured until the rounds
 * tell (`contest.ts`), up to the longest time. Leaves in the work folder a samples file for each measured cell, and the newest `CellsFile`, which the result names. An attempt that continues keeps the rounds of the earlier one
 * while machine, engine and code are the same.
 */
export async function benchmark(child: ChildAttempt<BenchmarkSpec>): Promise<{ cells: number; file: string }> {
  const { spec } = child;
  const file: CellsFile = {
    machine: readMachine(),
    bootId: readBootId(),
    codeVersion: spec.codeVersion,
    cells: earlierCells(child) ?? planned(spec),
  };
  const open = new Map<Cell, CellProcess>();
  const rounds: RoundsOfCells = new Map(
    file.cells.map((cell) => [cell, new Map(readSamples(child, cell).flatMap((one) => [...roundsOf(one, disturbedOf(cell))]))]),
  );
  let round = 1 + Math.max(-1, ...file.cells.flatMap(({ blocks }) => blocks.map((block) => block.round)));
  try {
    for (let waiting = wanting(spec, file.cells, rounds); waiting.length > 0; ) {
      waiting = await openSome(child, waiting, open);
      for (let left = [...open.keys()]; left.length > 0; left = wanting(spec, [...open.keys()], rounds)) {
        child.phase('measurement', null);
        for (const cell of shuffled(left, spec.seed, round)) {
          const samples = await measureRound(child, cell, open.get(cell) as CellProcess, round);
          if (samples) for (const [at, found] of roundsOf(samples, disturbedOf(cell))) rounds.get(cell)?.set(at, found);
          else rounds.get(cell)?.clear();
        }
        save(child, file, `cells-${round}.json`);
        round += 1;
      }
      for (const [cell, process] of open) await finish(cell, process);
      open.clear();
    }
  } finally {
    for (const process of open.values()) process.kill();
  }
  for (const cell of file.cells) keepSamples(child, cell);
  return { cells: file.cells.length, file: save(child, file, 'cells.json').name };
}

const planned = (spec: BenchmarkSpec): Cell[] =>
  planCells(spec).map((cell) => ({
    ...cell,
    engineVersion: engines[cell.engine].version,
    telemetry: nothingMeasured({ code: 'WAITING', message: 'It was not begun.' }),
    blocks: [],
    samples: null,
  }));

const elapsedOf = ({ blocks }: Cell): number => blocks.reduce((sum, { elapsedNs }) => sum + elapsedNs, 0);
const countOf = ({ blocks }: Cell): number => blocks.reduce((sum, { count }) => sum + count, 0);

type RoundsOfCells = Map<Cell, Map<number, RoundStatistics>>;

/** The cells that are to be measured, or measured for longer. */
function wanting(spec: BenchmarkSpec, cells: Cell[], rounds: RoundsOfCells): Cell[] {
  const right = cells.filter(({ blocks }) => blocks.length > 0).map((cell) => ({ ...cell, rounds: rounds.get(cell) ?? new Map() }));
  const contest = contestOf(right, spec.target, spec.settings.precision);
  return cells.filter((cell) => wants(spec, cell, contest));
}

function wants({ settings }: BenchmarkSpec, cell: Cell, contest?: Contest): boolean {
  const { secondsMin, secondsMax, samplesWanted, samplesMax } = settings;
  const { unavailable } = cell.telemetry;
  if (unavailable) return unavailable.code === 'WAITING';
  if (cell.telemetry.warmup === null) return false;
  const [elapsedNs, count] = [elapsedOf(cell), countOf(cell)];
  if (count >= samplesMax) return false;
  if (elapsedNs < secondsMin * 1e9) return true;
  return elapsedNs < secondsMax * 1e9 && !contest?.beaten.has(cell.n) && (count < samplesWanted || contest?.open.has(cell.n) === true);
}

/** The order of a round: the same for the same seed. */
export function shuffled<T extends { n: number }>(cells: T[], seed: number, round: number): T[] {
  const key = ({ n }: T) => createHash('sha256').update(`${seed} ${round} ${n}`).digest('hex');
  return cells.toSorted((a, b) => (key(a) < key(b) ? -1 : 1));
}

/** Opens cells until the memory is used, and returns those that still wait. Those that cannot be measured say why. */
async function openSome(child: ChildAttempt<BenchmarkSpec>, waiting: Cell[], open: Map<Cell, CellProcess>): Promise<Cell[]> {
  const { spec } = child;
  let inputs: { key: string; prepared: Prepared | Problem } | undefined;
  for (const [at, cell] of waiting.entries()) {
    if (open.size >= loadedMax || (open.size > 0 && freemem() < memoryShareFree * totalmem())) return waiting.slice(at);
    child.phase('start', null);
    const reason = await engines[cell.engine].missing(process.env.PATH ?? '');
    const key = `${cell.model} ${cell.batchSize}`;
    if (reason === null && inputs?.key !== key) {
      const preparing = startCell(child);
      inputs = { key, prepared: await preparing.ask<Prepared>({ do: 'prepare', spec, cell: plannedOf(cell) }).finally(preparing.kill) };
    }
    const prepared = reason === null && inputs ? inputs.prepared : problem('ENGINE_UNAVAILABLE', String(reason));
    if ('problem' in prepared) {
      cell.telemetry = nothingMeasured(prepared.problem);
      // The process died, perhaps by chance: only this row is lost, and the next one has its inputs made again.
      if (prepared.problem.code === crashed) inputs = undefined;
      continue;
    }
    const opened = startCell(child);
    open.set(cell, opened);
    const telemetry = await opened.ask<Telemetry>({ do: 'open', spec, cell: plannedOf(cell), prepared });
    cell.telemetry = isProblem(telemetry) ? nothingMeasured(telemetry.problem) : telemetry;
    if (!wants(spec, cell)) {
      opened.kill();
      open.delete(cell);
    }
  }
  return [];
}

const plannedOf = ({ n, model, engine, batchSize, intraOpThreads, instances }: Cell): PlannedCell => ({
  n,
  model,
  engine,
  batchSize,
  intraOpThreads,
  instances,
});

/** One block of a cell. What a cell has measured does not count any more when its process fails: null then. */
async function measureRound(
  child: ChildAttempt<BenchmarkSpec>,
  cell: Cell,
  process: CellProcess,
  round: number,
): Promise<RawSamples | null> {
  const { secondsMin, secondsMax, blockSeconds, samplesMax } = child.spec.settings;
  const asked = {
    round,
    seconds: Math.max(Math.min(blockSeconds, secondsMin / roundsMin), secondsMax / roundsMax),
    // A model of a few microseconds has as many rounds as another.
    samplesMax: Math.min(samplesMax - countOf(cell), Math.ceil(samplesMax / roundsMin)),
    elapsedNs: elapsedOf(cell),
  };
  const block = await process.ask<Block>({ do: 'block', asked });
  if (isProblem(block)) {
    cell.telemetry = nothingMeasured(block.problem);
    cell.blocks = [];
    return null;
  }
  const { samples, elapsedNs, noise } = block;
  appendFileSync(join(child.workDir, partOf(cell)), encodeSamples(samples), { flush: true });
  cell.blocks.push({ round, count: samples.latencyNs.length, elapsedNs, noise });
  return samples;
}

async function finish(cell: Cell, process: CellProcess): Promise<void> {
  if (cell.telemetry.unavailable === null) {
    const use = await process.ask<Use>({ do: 'close' });
    if (!isProblem(use)) Object.assign(cell.telemetry, use);
    cell.telemetry.noise = noiseOf(cell.blocks);
    const disturbedRounds = disturbedOf(cell);
    if (disturbedRounds.length > 0) cell.telemetry.disturbedRounds = disturbedRounds;
  }
  process.kill();
}

const disturbedOf = ({ blocks }: Cell): number[] => blocks.filter(({ noise }) => isDisturbed(noise)).map(({ round }) => round);

/** Over all blocks, each counted for as long as it lasted. */
function noiseOf(blocks: BlockSummary[]): Telemetry['noise'] {
  const lasted = blocks.reduce((sum, { elapsedNs }) => sum + elapsedNs, 0);
  const mean = (name: 'steal' | 'throttled' | 'contention') =>
    blocks.some(({ noise }) => noise[name] === null)
      ? null
      : blocks.reduce((sum, { noise, elapsedNs }) => sum + (noise[name] as number) * elapsedNs, 0) / Math.max(1, lasted);
  return { steal: mean('steal'), throttled: mean('throttled'), contention: mean('contention') };
}

interface Problem {
  problem: { code: string; message: string };
}

const problem = (code: string, message: string): Problem => ({ problem: { code, message } });

/** Longest time in which a process tells nothing: a single inference may take that long. */
const silentMsMax = 300_000;
const lookMs = 100;
/** With less, the disk counts as full. */
const roomBytesMin = 2 ** 20;

const crashed = 'ENGINE_CRASHED';

/** A process of a cell, in this one's group. One that crashes or tells nothing is a problem of its row. */
interface CellProcess {
  ask<T>(step: CellStep): Promise<T | Problem>;
  kill(): void;
}

function startCell(child: ChildAttempt): CellProcess {
  const started = fork(join(import.meta.dirname, 'cell.ts'), { serialization: 'advanced' });
  let toldAt = performance.now();
  let answer: (result: unknown) => void = () => {};
  const died = once(started, 'exit').then(([code, signal]) => {
    const how =
      signal === 'SIGKILL' ? 'was killed, as the system does when memory runs out' : `ended with ${signal ?? `exit code ${code}`}`;
    return problem(crashed, `The process of the engine ${how}.`);
  });
  // A step that is sent to a process that has died: `died` says so.
  started.on('error', () => {});
  started.on('message', (told: CellMessage) => {
    toldAt = performance.now();
    if ('phase' in told) child.phase(told.phase, told.total);
    else if ('advance' in told) child.advance(told.advance, told.metrics);
    else answer(told.result);
  });
  return {
    async ask<T>(step: CellStep): Promise<T | Problem> {
      toldAt = performance.now();
      let stalled = false;
      const timer = setInterval(() => {
        stalled ||= performance.now() - toldAt > silentMsMax;
        if (stalled || child.stopping()) started.kill('SIGKILL');
      }, lookMs);
      const answered = new Promise<T>((resolve) => {
        answer = resolve as (result: unknown) => void;
      });
      if (started.connected) started.send(step);
      const ended = await Promise.race([answered, died]).finally(() => clearInterval(timer));
      child.checkStop();
      if (stalled) return problem('STALLED', `The engine computed for ${silentMsMax / 1000} s without an end.`);
      // An engine that fails on a full disk does not say why. A later attempt measures this row again.
      if (isProblem(ended) && !hasRoom(child)) throw new ChildError('DISK_FULL', 'The disk is full: free some space.');
      return ended;
    },
    kill: () => void started.kill('SIGKILL'),
  };
}

const isProblem = (ended: unknown): ended is Problem => typeof ended === 'object' && ended !== null && 'problem' in ended;

function hasRoom({ workDir }: ChildAttempt): boolean {
  const { bavail, bsize } = statfsSync(workDir);
  return bavail * bsize > roomBytesMin;
}

const partOf = ({ n }: PlannedCell): string => `samples-${n}.part`;

/** The samples of a cell, block by block, as they were appended. */
function readSamples({ workDir }: ChildAttempt, cell: Cell): RawSamples[] {
  if (cell.blocks.length === 0) return [];
  const part = readFileSync(join(workDir, partOf(cell)));
  let from = 0;
  return cell.blocks.map(({ count }) => {
    const block = decodeSamples(part.subarray(from, from + samplesBytes(count)));
    from += samplesBytes(count);
    return block;
  });
}

/** The samples of a cell as the file that is kept. */
function keepSamples(child: ChildAttempt, cell: Cell): void {
  const { n, engine, batchSize, intraOpThreads, instances } = cell;
  const samples = readSamples(child, cell);
  if (samples.length === 0) return;
  cell.samples = write(child, `samples-${n}.bin`, encodeSamples(joinSamples(samples)));
  child.artifact('SAMPLES', cell.samples, { n, engine, batchSize, intraOpThreads, instances, count: countOf(cell) });
}

function write({ workDir }: ChildAttempt, name: string, bytes: Uint8Array): MadeFile {
  writeFileSync(join(workDir, name), bytes, { flush: true });
  return { name, sha256: createHash('sha256').update(bytes).digest('hex'), sizeBytes: bytes.byteLength };
}

/** Each has a name of its own: a checkpoint that was reported must not change. */
function save(child: ChildAttempt<BenchmarkSpec>, file: CellsFile, name: string): MadeFile {
  const made = write(child, name, Buffer.from(canonicalJson(file)));
  child.checkpoint(made, Math.max(0, ...file.cells.map(({ blocks }) => blocks.length)));
  return made;
}

/** The cells of an earlier attempt, with their samples in this attempt's folder; null when they cannot be continued. */
function earlierCells({ spec, workDir }: ChildAttempt<BenchmarkSpec>): Cell[] | null {
  const { resumeFrom, codeVersion } = spec;
  if (resumeFrom === null) return null;
  const file = CellsFile.safeParse(JSON.parse(readFileSync(resumeFrom, 'utf8'))).data;
  const same =
    file?.bootId === readBootId() &&
    file.codeVersion === codeVersion &&
    canonicalJson(file.machine) === canonicalJson(readMachine()) &&
    file.cells.every(({ engine, engineVersion }) => engineVersion === engines[engine].version);
  if (!same) return null;
  for (const cell of file.cells) {
    const whole = samplesBytes(countOf(cell));
    if (whole > 0)
      writeFileSync(join(workDir, partOf(cell)), readFileSync(join(dirname(resumeFrom), partOf(cell))).subarray(0, whole), { flush: true });
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
