import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { hyperparametersOf } from '../src/jobs/hyperparameterInfo.ts';
import { presets } from '../src/jobs/presets.ts';
import {
  CommandLine,
  EVENT_LINE_BYTES_MAX,
  type Event,
  exitCodes,
  parseEventLine,
  phases,
  SpecLine,
  trainerErrorCodes,
} from '../src/jobs/protocol.ts';
import { PreprocessSpec, presetPreprocess } from '../src/vision/spec.ts';

const lines = (name: string): string[] =>
  readFileSync(new URL(`./fixtures/protocol/${name}`, import.meta.url), 'utf8')
    .trim()
    .split('\n');
const refused = (name: string): { why: string; line: string }[] => lines(name).map((line) => JSON.parse(line));

function event(line: string): Event {
  const parsed = parseEventLine(line);
  if ('problem' in parsed) throw new Error(parsed.problem);
  return parsed;
}

describe('event lines', () => {
  it('reads a line of every type, unchanged', () => {
    const parsed = lines('events.jsonl').map(event);
    expect(parsed).toEqual(lines('events.jsonl').map((line) => JSON.parse(line)));
    expect(new Set(parsed.map((e) => e.type))).toEqual(
      new Set(['hello', 'phase', 'batch', 'epoch', 'checkpoint', 'artifact', 'gate', 'heartbeat', 'warning', 'error', 'done']),
    );
  });

  it.each(refused('events.invalid.jsonl'))('refuses $why', ({ line }) => {
    expect(parseEventLine(line)).toEqual({ problem: expect.any(String) });
  });

  it('says which version it expects', () => {
    expect(parseEventLine('{"v":2}')).toEqual({ problem: 'protocol version 2, expected 1' });
  });

  it('drops fields that it does not know', () => {
    const [line] = lines('events.jsonl') as [string];
    const known = JSON.parse(line);
    expect(event(JSON.stringify({ ...known, later: { nested: true } }))).toEqual(known);
  });

  it('refuses a line that is longer than the limit, counted in bytes, and reads one that just fits', () => {
    const envelope = { v: 1, job: 'j', attempt: 1, n: 1, t: 1, type: 'done', status: 'ok' };
    const filled = (letter: string, count: number) => JSON.stringify({ ...envelope, result: { text: letter.repeat(count) } });
    const room = EVENT_LINE_BYTES_MAX - 1 - filled('', 0).length;
    expect(event(filled('x', room)).type).toBe('done');
    expect(parseEventLine(filled('x', room + 1))).toEqual({ problem: 'line longer than 65536 bytes' });
    expect(parseEventLine(filled('é', Math.ceil((room + 1) / 2)))).toEqual({ problem: 'line longer than 65536 bytes' });
  });

  it('gives every error code an exit code that the attempt can end with', () => {
    const allowed = new Set<number>(Object.values(exitCodes).filter((code) => code !== exitCodes.OK && code !== exitCodes.STOPPED));
    for (const code of Object.values(trainerErrorCodes)) expect(allowed).toContain(code);
  });

  it('limits how long the step of each phase may stand still', () => {
    for (const { stallMsMax } of Object.values(phases)) expect(stallMsMax).toBeGreaterThanOrEqual(60_000);
  });
});

describe('specifications', () => {
  it('reads one of every kind', () => {
    const parsed = lines('specs.jsonl').map((line) => SpecLine.parse(JSON.parse(line)));
    expect(new Set(parsed.map(({ spec }) => spec.kind))).toEqual(
      new Set(['TRAIN', 'CONVERT', 'COMPRESS', 'EVALUATE', 'IMPORT_MODEL', 'ASK', 'MEASURE', 'IMPORT_DATASET', 'BENCHMARK']),
    );
  });

  it.each(refused('specs.invalid.jsonl'))('refuses $why', ({ line }) => {
    expect(SpecLine.safeParse(JSON.parse(line)).success).toBe(false);
  });

  it('reads the commands', () => {
    expect(lines('commands.jsonl').map((line) => CommandLine.parse(JSON.parse(line)).command)).toEqual(['cancel', 'suspend']);
  });
});

describe('presets', () => {
  it.each(Object.keys(presets) as (keyof typeof presets)[])('%s describes each hyperparameter, and its defaults are valid', (name) => {
    const schema = presets[name].hyperparameters;
    const infos = hyperparametersOf(name);
    expect(infos.map((info) => info.name)).toEqual(Object.keys(schema.shape));
    expect(Object.fromEntries(infos.map((info) => [info.name, info.default]))).toEqual(schema.parse({}));
    for (const info of infos) {
      expect(info.description, info.name).toMatch(/\.$/);
      if (info.type === 'ENUM') expect(info.values).toContain(info.default);
      else if (info.type !== 'BOOLEAN') expect(info.minimum, info.name).not.toBeNull();
    }
  });

  it('train with a valid preprocessing', () => {
    expect(PreprocessSpec.parse(presetPreprocess(224))).toMatchObject({ width: 224, height: 224, layout: 'NCHW' });
  });
});

it('trainer/protocol.schema.json is what this code writes', () => {
  const script = join(import.meta.dirname, '..', 'scripts', 'protocol.ts');
  expect(() => execFileSync(process.execPath, [script, '--check'], { stdio: 'pipe' })).not.toThrow();
});
