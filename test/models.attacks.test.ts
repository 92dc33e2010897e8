import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { collectBlobs } from '../src/storage/blobs.ts';
import { artifact } from '../src/storage/tables.ts';
import { type Imported, type Models, withModels } from './support/models.ts';
import { makeModelFiles } from './support/onnx.ts';
import { blobsOf } from './support/storage.ts';

/** Each hostile file, the code of its failure, and a part of the message. */
const attacks: [string, string, string][] = [
  ['external-up.onnx', 'MODEL_UNSAFE', 'external_data=False'],
  ['external-absolute.onnx', 'MODEL_UNSAFE', 'external_data=False'],
  ['external-link.onnx', 'MODEL_UNSAFE', 'external_data=False'],
  ['external-folder.onnx', 'MODEL_UNSAFE', 'external_data=False'],
  ['huge.onnx', 'MODEL_UNSAFE', '160 GB'],
  ['unknown-domain.onnx', 'MODEL_INVALID', 'org.evil::Steal'],
  ['unknown-operator.onnx', 'MODEL_INVALID', 'Steal'],
  ['truncated.onnx', 'MODEL_INVALID', 'not all of it'],
  ['text.onnx', 'MODEL_INVALID', 'not ONNX'],
  ['evil.pt', 'MODEL_UNSAFE', 'torch.save(model.state_dict(), file)'],
  ['module.pt', 'MODEL_UNSAFE', 'torch.save(model.state_dict(), file)'],
  ['missing.safetensors', 'WEIGHTS_INVALID', 'missing layer1.0.conv1.weight'],
  ['misshapen.safetensors', 'WEIGHTS_INVALID', 'shape conv1.weight: [64, 3, 5, 5], expected [64, 3, 7, 7]'],
];

const folder = mkdtempSync(join(tmpdir(), 'whetstone-attacks-'));
const presetOf = (name: string) => (name.endsWith('.onnx') ? {} : { preset: 'resnet50' });
/** Valid, and harmless until they are run, which no import does: 2⁶² is also how exporters write "until the condition ends the loop". */
const harmless = ['loop.onnx', 'classifier.onnx'];

beforeAll(() => makeModelFiles(folder, [...attacks.map(([name]) => name), ...harmless]));
afterAll(() => rmSync(folder, { recursive: true }));

describe('hostile and broken files, one after the other in one server', () => {
  const outcomes = new Map<string, Imported & { said: unknown }>();
  let left: { artifacts: unknown[]; blobs: string[]; works: string[]; removed: number } | undefined;

  beforeAll(
    () =>
      withModels(async (models: Models) => {
        await models.start();
        await Promise.all(
          attacks.map(async ([name]) => {
            const imported = await models.import(join(folder, name), { name, ...presetOf(name) });
            outcomes.set(name, { ...imported, said: models.events(imported.job.id) });
          }),
        );
        const artifacts = models.db.select().from(artifact).all();
        const removed = await collectBlobs(models, Date.now() + 7 * 24 * 3600_000);
        left = { artifacts, removed, blobs: blobsOf(models.folder), works: readdirSync(join(models.folder, 'work')) };
        for (const name of harmless) outcomes.set(name, { ...(await models.import(join(folder, name))), said: null });
      }),
    600_000,
  );

  test.each(attacks)('%s is refused with %s and says why', (name, code, message) => {
    const { job, version, said } = outcomes.get(name) as Imported & { said: unknown };
    expect(job).toMatchObject({ state: 'FAILED', failureCode: code, failureMessage: expect.stringContaining(message), attemptNumber: 1 });
    expect(version).toMatchObject({ state: 'FAILED', artifactId: null, sha256: null, signatureJson: null });
    expect(JSON.stringify([job.failureMessage, said])).not.toMatch(/\/(tmp|etc|root|home|work)\b|whetstone-/);
  });

  test('nothing in them was run', () => expect(existsSync(join(folder, 'executed'))).toBe(false));

  test('nothing of them is stored', () => {
    expect(left).toEqual({ artifacts: [], blobs: [], works: [], removed: attacks.length });
  });

  test.each(harmless)('after them %s is imported', (name) => {
    expect(outcomes.get(name)).toMatchObject({ job: { state: 'SUCCEEDED', attemptNumber: 1 }, version: { state: 'READY' } });
  });
});
