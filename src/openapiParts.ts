/** What the OpenAPI 3.1 documents of both processes are put together from. */
import { z } from 'zod';

export type JsonSchema = Record<string, unknown>;

/** An object with these properties, all of them there but for the `optional` ones, and with no others. */
export const object = (properties: Record<string, JsonSchema>, optional: readonly string[] = []): JsonSchema => ({
  type: 'object',
  properties,
  required: Object.keys(properties).filter((name) => !optional.includes(name)),
  additionalProperties: false,
});

export const text = (description?: string): JsonSchema => ({ type: 'string', description });
export const integer = (description?: string): JsonSchema => ({ type: 'integer', minimum: 0, description });
export const listOf = (items: JsonSchema, description?: string): JsonSchema => ({ type: 'array', items, description });

export function fromZod(schema: z.ZodType, io: 'input' | 'output' = 'output'): JsonSchema {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io });
  return rest;
}

export const json = (schema: JsonSchema) => ({ 'application/json': { schema } });
/** Any bytes. */
export const bytes = (...types: string[]) => Object.fromEntries(types.map((type) => [type, { schema: {} }]));
export const schemaRef = (name: string): JsonSchema => ({ $ref: `#/components/schemas/${name}` });

/** Headers of an answer with what they say; which of them come depends on the answer. */
export const headers = (described: Record<string, string>) =>
  Object.fromEntries(Object.entries(described).map(([name, description]) => [name, { description, schema: { type: 'string' } }]));

export const parameter = (where: 'path' | 'query' | 'header', name: string, description: string, schema: JsonSchema = text()) => ({
  name,
  in: where,
  required: where === 'path',
  description,
  schema,
});
