import { eq } from 'drizzle-orm';
import { z } from 'zod';
import type { Queryable } from '../db.ts';
import { ModelConfig } from '../inference/config.ts';
import { modelVersion } from '../models/tables.ts';
import { taskOf } from '../training/sources.ts';
import type { WantedRevision } from './deployments.ts';

const Portable = z.strictObject(ModelConfig.shape).omit({ file: true });

/** How a host serves a model; where its file lies depends on the machine of the host. */
export type PortableModelConfig = z.infer<typeof Portable>;

/** The one place that makes a revision's model configuration. `problem` says why it cannot be served. */
export function modelConfigOf(
  db: Queryable,
  { name, number, modelVersionId, settingsJson }: Pick<WantedRevision, 'name' | 'number' | 'modelVersionId' | 'settingsJson'>,
): { model: PortableModelConfig } | { problem: string } {
  const row = db.select().from(modelVersion).where(eq(modelVersion.id, modelVersionId)).get();
  if (!row?.sha256) return { problem: 'The model version has no file. Deploy another version.' };
  const { number: modelVersionNumber, sha256, lineageHash, labelsJson, preprocessJson, preset } = row;
  const task = taskOf(db, row);
  const { data: model, error } = Portable.safeParse({
    // Every detector of a preset is exported like this.
    outputLayout: preset && task === 'DETECTION' ? 'BOXES_SCORES' : undefined,
    ...settingsJson,
    name,
    version: number,
    modelVersion: modelVersionNumber,
    sha256,
    lineageHash: lineageHash ?? undefined,
    task,
    labels: labelsJson ?? undefined,
    preprocess: preprocessJson ?? undefined,
  });
  return model ? { model } : { problem: `The model version cannot be served: ${error.issues.map(({ message }) => message).join(' ')}` };
}
