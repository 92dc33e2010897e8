import { mkdirSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { readImage } from '../../src/datasets/imageTable.ts';
import { importCommand } from '../../src/datasets/import/launch.ts';
import { type DatasetSummary, type ImportedItem, files as outputs } from '../../src/datasets/import/outputs.ts';
import { importZip } from '../../src/datasets/import/run.ts';
import { attemptLimits } from '../../src/jobs/attempt.ts';
import { createChildAttempt, lastEventOf, type Said, stateIndex, stops } from '../../src/jobs/childio.ts';
import { type ChildHandle, startChild } from '../../src/jobs/executor/local.ts';
import { type Event, exitCodes, PROTOCOL_VERSION, parseEventLine } from '../../src/jobs/protocol.ts';
import { ImportDatasetSpec } from '../../src/jobs/specs.ts';
import { type Files, zipOf } from './images.ts';
import { withFolder } from './server.ts';

export type SpecChanges = Partial<Omit<ImportDatasetSpec, 'limits'>> & {
  limits?: Partial<ImportDatasetSpec['limits']>;
  /** Given before it has begun. */
  command?: 'cancel' | 'suspend';
};

export const specOf = (file: string, { limits, command: _, ...changes }: SpecChanges): ImportDatasetSpec => ({
  ...ImportDatasetSpec.parse({
    kind: 'IMPORT_DATASET',
    specVersion: 1,
    codeVersion: 'test',
    cpuThreads: 2,
    file,
    fileName: 'a.zip',
    task: 'CLASSIFICATION',
    splitSeed: 0,
    splitShares: {},
    limits: { filesMax: 500_000, ...limits },
  }),
  ...changes,
});

export interface Imported {
  zip: string;
  /** Empty but for what the import has left. */
  workDir: string;
  exitCode: number | null;
  events: Said[];
  error: Extract<Said, { type: 'error' }> | undefined;
  done: Extract<Said, { type: 'done' }> | undefined;
  warnings: string[];
  /** What the import has made; throws when it has failed. */
  summary(): DatasetSummary;
  items(): ImportedItem[];
  /** "train 0/1.png" for each item. */
  paths(): string[];
  text(name: string): string;
  /** The bytes that the dataset has of an item. */
  image(item: Pick<ImportedItem, 'n'>): Promise<Buffer>;
}

function imported(zip: string, workDir: string, events: Said[], exitCode: number | null): Imported {
  const only = <T extends Said['type']>(type: T) => events.filter((e): e is Extract<Said, { type: T }> => e.type === type);
  const text = (name: string) => readFileSync(join(workDir, name), 'utf8');
  const items = () =>
    text(outputs.items)
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as ImportedItem);
  return {
    zip,
    workDir,
    exitCode,
    events,
    error: only('error')[0],
    done: only('done')[0],
    warnings: only('warning').map(({ code }) => code),
    summary: () => JSON.parse(text(outputs.summary)) as DatasetSummary,
    items,
    paths: () => items().map(({ split, path }) => `${split} ${path}`),
    text,
    image: ({ n }) => readImage({ zip, images: join(workDir, outputs.images) }, n),
  };
}

/** How an import is run: in this process, or as its child runs it. */
export type Run = (zip: string, workDir: string, changes: SpecChanges) => Promise<Imported>;

export const inProcess: Run = async (zip, workDir, changes) => {
  const events: Said[] = [];
  const state = new Int32Array(2);
  Atomics.store(state, stateIndex.stop, stops.indexOf(changes.command ?? 'none'));
  const child = createChildAttempt(specOf(zip, changes), workDir, state, (event) => events.push(event));
  const end = await importZip(child).then(
    (result) => ({ event: { type: 'done', status: 'ok', result } as const, exitCode: exitCodes.OK }),
    (error: unknown) => lastEventOf(error),
  );
  return imported(zip, workDir, [...events, end.event], end.exitCode);
};

export const asChild: Run = async (zip, workDir, changes) => {
  const { events, child } = start(zip, workDir, changes);
  if (changes.command) child.command(changes.command);
  const { exitCode } = await child.ended;
  return imported(zip, workDir, events, exitCode);
};

export interface Started {
  child: ChildHandle;
  events: Event[];
  /** The first event, told already or later, that `matches`; throws when the child ends without one. */
  event(matches: (event: Event) => boolean): Promise<Event>;
  /** What it wrote to its standard error. */
  log: string[];
}

/** Starts a child that works in `workDir` and may write into `allowed`. */
export function start(zip: string, workDir: string, changes: SpecChanges = {}, allowed = workDir): Started {
  const spec = specOf(zip, changes);
  const { env, ...command } = importCommand(spec, allowed);
  const events: Event[] = [];
  const log: string[] = [];
  const seen = new Set<(event: Event) => void>();
  const child = startChild(
    {
      ...command,
      cwd: workDir,
      env: { PATH: process.env.PATH ?? '', ...env },
      specLine: { v: PROTOCOL_VERSION, job: 'a job', attempt: 1, workDir, spec },
      lastLinesMs: attemptLimits.lastLinesMs,
    },
    {
      async events(lines) {
        for (const event of lines.map(parseEventLine)) {
          if ('problem' in event) throw new Error(event.problem);
          events.push(event);
          for (const tell of seen) tell(event);
        }
      },
      log: (_stream, lines) => log.push(...lines),
    },
  );
  const event: Started['event'] = (matches) =>
    new Promise((resolve, reject) => {
      const tell = (e: Event) => matches(e) && resolve(e);
      seen.add(tell);
      events.forEach(tell);
      child.ended.then(() => reject(new Error(`The child ended without the event that was waited for.\n${log.join('\n')}`)));
    });
  return { child, events, event, log };
}

/** Imports a zip (its bytes, or what shall be in it), and runs `use` with the result. */
export async function withImport<T>(
  zip: Buffer | Files,
  use: (imported: Imported) => T | Promise<T>,
  { run = inProcess, ...changes }: SpecChanges & { run?: Run } = {},
): Promise<T> {
  return withFolder(async (folder) => {
    const file = join(folder, 'a.zip');
    await writeFile(file, Buffer.isBuffer(zip) ? zip : zipOf(zip));
    const workDir = join(folder, 'work');
    mkdirSync(workDir);
    return use(await run(file, workDir, changes));
  });
}
