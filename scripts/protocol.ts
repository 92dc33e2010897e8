/**
 * Writes what the trainer takes from src/jobs/protocol.ts: protocol.schema.json, and the dataclasses of the hyperparameters. Before that it
 * asks the trainer for the sizes of the presets (src/jobs/presets.json). With --check it only compares, and fails on a difference.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { z } from 'zod';
import { classifiers } from '../src/jobs/classifiers.ts';
import { detectors } from '../src/jobs/detectors.ts';
import { trainerFolder, trainerPython } from '../src/python.ts';

const factsFile = new URL('../src/jobs/presets.json', import.meta.url);
// What the file holds is checked by the trainer's tests: it takes PyTorch seconds.
if (!process.argv.includes('--check')) {
  const rows = JSON.stringify({ ...classifiers, ...detectors });
  const answer = execFileSync(trainerPython, ['-m', 'whetstone_trainer.preset_facts', rows], { cwd: trainerFolder, encoding: 'utf8' });
  writeFileSync(factsFile, `${JSON.stringify(JSON.parse(answer), null, 2)}\n`);
}

const { default: facts } = await import('../src/jobs/presets.json', { with: { type: 'json' } });
const { DatasetItem } = await import('../src/jobs/manifest.ts');
const { ClassificationHyperparameters, DetectionHyperparameters, presets } = await import('../src/jobs/presets.ts');
const { CommandLine, Event, phases, SpecLine, trainerErrorCodes } = await import('../src/jobs/protocol.ts');
const { Evaluation, OnnxMeta, results, WeightsMeta } = await import('../src/jobs/results.ts');

/** `$defs` of one direction; a reader ignores unknown fields, a writer must not write any. */
function definitions(schemas: Record<string, z.ZodType>, unknownFields: 'ignored' | 'refused', io: 'input' | 'output' = 'output') {
  const schema = z.toJSONSchema(z.object(schemas), {
    io,
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
  classifiers: Object.fromEntries(
    Object.entries(classifiers).map(([name, { stages }]) => {
      const { head, weights } = facts[name as keyof typeof classifiers];
      return [name, { head, weights, stages }];
    }),
  ),
  detectors: Object.fromEntries(Object.entries(detectors).map(([name, { size, backbone }]) => [name, { size, backbone }])),
  $defs: {
    ...definitions({ Event, Evaluation, OnnxMeta, WeightsMeta, ...results }, 'refused'),
    ...definitions({ SpecLine, CommandLine }, 'ignored'),
    // Manifests of earlier versions lack the fields that have a default.
    ...definitions({ DatasetItem }, 'ignored', 'input'),
  },
};

/** The fields of a Python dataclass, with the names that `camel` in the trainer's `protocol.py` makes of them. */
function fieldsOf({ shape }: z.ZodObject): string {
  const { properties } = z.toJSONSchema(z.object(shape));
  const typeOf = ({ enum: values, type }: z.core.JSONSchema.Schema) =>
    values ? `Literal[${values.map((value) => JSON.stringify(value)).join(', ')}]` : type === 'integer' ? 'int' : 'float';
  return Object.entries(properties as Record<string, z.core.JSONSchema.Schema>)
    .map(([name, field]) => `    ${name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}: ${typeOf(field)}\n`)
    .join('');
}

const hyperparameters = { ClassificationHyperparameters, DetectionHyperparameters };

const dataclasses = `"""Written by scripts/protocol.ts from src/jobs/presets.ts, where descriptions, ranges and defaults are: do not edit."""

from dataclasses import dataclass
from typing import Literal
${Object.entries(hyperparameters)
  .map(([name, schema]) => `\n\n@dataclass(frozen=True, kw_only=True)\nclass ${name}:\n${fieldsOf(schema)}`)
  .join('')}`;

const files = {
  '../trainer/protocol.schema.json': `${JSON.stringify(schema, null, 1)}\n`,
  '../trainer/whetstone_trainer/hyperparameters.py': dataclasses,
};
for (const [name, text] of Object.entries(files)) {
  const file = new URL(name, import.meta.url);
  if (!process.argv.includes('--check')) writeFileSync(file, text);
  else if (readFileSync(file, 'utf8') !== text) {
    console.error(`${name.slice(3)} differs from src/jobs/: run \`npm run protocol\`.`);
    process.exitCode = 1;
  }
}
