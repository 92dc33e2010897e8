/**
 * Writes what the trainer takes from src/jobs/protocol.ts: protocol.schema.json, and the dataclasses of the hyperparameters. Before that it
 * asks the trainer for the sizes of the presets (src/jobs/presets.json). With --check it only compares, and fails on a difference.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { z } from 'zod';
import { classifiers } from '../src/jobs/classifiers.ts';
import { detectors } from '../src/jobs/detectors.ts';
import { isInstalled } from '../src/jobs/extras.ts';
import { timmClassifiers } from '../src/jobs/timm.ts';
import { trainerFolder, trainerPython } from '../src/python.ts';

const factsFile = new URL('../src/jobs/presets.json', import.meta.url);
// What the file holds is checked by the trainer's tests: it takes PyTorch seconds.
if (!process.argv.includes('--check')) {
  const rows = Object.entries({ ...classifiers, ...timmClassifiers, ...detectors });
  const asked = JSON.stringify(Object.fromEntries(rows.filter(([name]) => isInstalled(name))));
  const answer = execFileSync(trainerPython, ['-m', 'whetstone_trainer.preset_facts', asked], { cwd: trainerFolder, encoding: 'utf8' });
  const found = { ...JSON.parse(readFileSync(factsFile, 'utf8')), ...JSON.parse(answer) };
  const missing = rows.filter(([name]) => !(name in found)).map(([name]) => name);
  if (missing.length > 0) throw new Error(`timm is not installed (WHETSTONE_TIMM=1): nothing is known of ${missing.join(', ')}.`);
  const sorted = Object.fromEntries(rows.map(([name]) => [name, found[name]]));
  writeFileSync(factsFile, `${JSON.stringify(sorted, null, 2)}\n`);
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
    Object.entries({ ...classifiers, ...timmClassifiers }).map(([name, { stages }]) => {
      const { head, weights }: { head: string; weights?: string } = facts[name as keyof typeof classifiers];
      return [name, { head, weights: weights ?? null, stages }];
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

const pythonTypes: Record<string, string> = { integer: 'int', boolean: 'bool' };

/** The fields of a Python dataclass, with the names that `camel` in the trainer's `protocol_json.py` makes of them. */
function fieldsOf({ shape }: z.ZodObject): string {
  const { properties } = z.toJSONSchema(z.object(shape));
  const typeOf = ({ enum: values, type }: z.core.JSONSchema.Schema) =>
    values ? `Literal[${values.map((value) => JSON.stringify(value)).join(', ')}]` : (pythonTypes[String(type)] ?? 'float');
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
