/** Writes trainer/protocol.schema.json from src/jobs/protocol.ts. With --check it only compares, and fails on a difference. */
import { readFileSync, writeFileSync } from 'node:fs';
import { z } from 'zod';
import {
  CommandLine,
  Evaluation,
  Event,
  OnnxMeta,
  phases,
  results,
  SpecLine,
  trainerErrorCodes,
  WeightsMeta,
} from '../src/jobs/protocol.ts';
import { DatasetItem, presets } from '../src/jobs/specs.ts';

/** `$defs` of one direction; a reader ignores unknown fields, a writer must not write any. */
function definitions(schemas: Record<string, z.ZodType>, unknownFields: 'ignored' | 'refused') {
  const schema = z.toJSONSchema(z.object(schemas), {
    override: ({ jsonSchema }) => {
      if (unknownFields === 'ignored' && jsonSchema.additionalProperties === false) delete jsonSchema.additionalProperties;
    },
  });
  return schema.$defs ?? {};
}

const schema = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  $comment: 'Written by scripts/protocol.ts from src/jobs/protocol.ts: do not edit.',
  errorCodes: trainerErrorCodes,
  phases: Object.keys(phases),
  presets: Object.fromEntries(Object.entries(presets).map(([name, { task }]) => [name, task])),
  $defs: {
    ...definitions({ Event, Evaluation, OnnxMeta, WeightsMeta, ...results }, 'refused'),
    ...definitions({ SpecLine, CommandLine, DatasetItem }, 'ignored'),
  },
};

const file = new URL('../trainer/protocol.schema.json', import.meta.url);
const text = `${JSON.stringify(schema, null, 1)}\n`;
if (!process.argv.includes('--check')) writeFileSync(file, text);
else if (readFileSync(file, 'utf8') !== text) {
  console.error('trainer/protocol.schema.json differs from src/jobs/protocol.ts: run `node scripts/protocol.ts`.');
  process.exit(1);
}
