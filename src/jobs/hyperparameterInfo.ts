/** What a form shows of hyperparameters, and what a study searches of them: read from the schemas in `presets.ts`. */
import { z } from 'zod';
import { type PresetName, presets } from './presets.ts';
import type { Dimension, Search } from './searchSpace.ts';

/** One hyperparameter as a form shows it. */
export interface HyperparameterInfo {
  name: string;
  type: 'INT' | 'FLOAT' | 'ENUM' | 'BOOLEAN';
  description: string;
  default: number | string | boolean;
  minimum: number | null;
  maximum: number | null;
  /** The values of an ENUM, else null. */
  values: string[] | null;
  /** What a study searches of it by default; null: nothing. */
  search: Dimension | null;
}

/** The hyperparameters of a preset in their declared order, read from its schema. */
export function hyperparametersOf(preset: PresetName): HyperparameterInfo[] {
  const { properties } = z.toJSONSchema(z.object(presets[preset].hyperparameters.shape));
  return Object.entries(properties as Record<string, z.core.JSONSchema.Schema>).map(([name, field]) => ({
    name,
    type: typeOf(field),
    description: field.description ?? '',
    default: field.default as HyperparameterInfo['default'],
    minimum: (field.minimum ?? field.exclusiveMinimum ?? null) as number | null,
    maximum: field.maximum ?? null,
    values: (field.enum as string[] | undefined) ?? null,
    search: field.search ? dimensionOf(name, field.type === 'integer', field.search as Search) : null,
  }));
}

function typeOf({ enum: values, type }: z.core.JSONSchema.Schema): HyperparameterInfo['type'] {
  if (values) return 'ENUM';
  return type === 'boolean' ? 'BOOLEAN' : type === 'integer' ? 'INT' : 'FLOAT';
}

function dimensionOf(name: string, isInt: boolean, search: Search): Dimension {
  const range = { low: null, high: null, log: false, step: null, choices: null, when: null };
  return { ...range, name, type: 'choices' in search ? 'CHOICE' : isInt ? 'INT' : 'FLOAT', ...search };
}
