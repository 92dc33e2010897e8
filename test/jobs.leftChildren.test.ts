import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { killLeftChildren, recordChild } from '../src/jobs/executor/leftChildren.ts';
import { createLog } from '../src/log.ts';
import { eventually } from './support/eventually.ts';
import { withFolder } from './support/server.ts';

const log = createLog({ logLevel: 'silent' });
const started: ChildProcess[] = [];
afterEach(() => {
  for (const child of started.splice(0)) child.kill('SIGKILL');
});

/** A child that hangs, in a folder. */
async function hanging(cwd: string): Promise<ChildProcess & { pid: number }> {
  mkdirSync(cwd, { recursive: true });
  const child = spawn('sleep', ['600'], { cwd, detached: true, stdio: 'ignore' });
  started.push(child);
  await once(child, 'spawn');
  child.kill('SIGSTOP');
  return child as ChildProcess & { pid: number };
}
const records = (dataDir: string) => readdirSync(join(dataDir, 'children'));

test('a child that hangs and outlived its server is killed by the next one', () =>
  withFolder(async (dataDir) => {
    const child = await hanging(join(dataDir, 'cache'));
    recordChild(dataDir, child.pid);
    const exit = once(child, 'exit');
    await killLeftChildren(dataDir, log);
    expect(await exit).toEqual([null, 'SIGKILL']);
    expect(records(dataDir)).toEqual([]);
  }));

test('a child that has ended leaves no record', () =>
  withFolder(async (dataDir) => {
    const child = await hanging(dataDir);
    const forget = recordChild(dataDir, child.pid);
    expect(records(dataDir)).toEqual([`${child.pid}`]);
    forget();
    expect(records(dataDir)).toEqual([]);
  }));

test('a server on a copy of a data folder leaves the children of the original alone', () =>
  withFolder(async (folder) => {
    const [original, copy] = [join(folder, 'original'), join(folder, 'copy')];
    const child = await hanging(join(original, 'inference'));
    recordChild(original, child.pid);
    cpSync(original, copy, { recursive: true });
    await killLeftChildren(copy, log);
    await eventually(() => expect(records(copy)).toEqual([]));
    expect(() => process.kill(child.pid, 0)).not.toThrow();
  }));
