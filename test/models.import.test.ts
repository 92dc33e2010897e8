import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eq } from 'drizzle-orm';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { retryJob } from '../src/jobs/retry.ts';
import { attempt } from '../src/jobs/tables.ts';
import { presetPreprocess } from '../src/jobs/specs.ts';
import { artifact } from '../src/storage/tables.ts';
import { type Models, withModels } from './support/models.ts';
import { makeModelFiles } from './support/onnx.ts';
import { blobOf } from './support/storage.ts';

const folder = mkdtempSync(join(tmpdir(), 'whetstone-models-'));
const file = (name: string) => join(folder, name);
beforeAll(() => makeModelFiles(folder, ['classifier.onnx', 'own.onnx', 'half.onnx', 'quantised.onnx', 'squeezenet.onnx', 'linear.onnx']));
afterAll(() => rmSync(folder, { recursive: true }));

const filesOf = ({ db }: Models, id: string) =>
  db
    .select({ kind: artifact.kind, name: artifact.name, sha256: artifact.sha256 })
    .from(artifact)
    .where(eq(artifact.ownerId, id))
    .all();

const preprocess = { ...presetPreprocess(8), mode: 'STRETCH', mean: [0, 0, 0], std: [1, 1, 1] } as const;
