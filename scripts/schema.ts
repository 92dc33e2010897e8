// Writes schema.graphql from the code; with --check it fails when the committed file differs. Both ways it makes the types of the terminal
// UI's documents of the committed file: tui/schema.d.ts, which git ignores.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { minifyIntrospection, outputIntrospectionFile } from '@gql.tada/internal';
import { buildSchema, introspectionFromSchema, lexicographicSortSchema, printSchema } from 'graphql';
import { schema } from '../src/graphql/schema.ts';

const path = join(import.meta.dirname, '..', 'schema.graphql');
const printed = `${printSchema(lexicographicSortSchema(schema))}\n`;
if (!process.argv.includes('--check')) {
  writeFileSync(path, printed);
} else if (readFileSync(path, 'utf8') !== printed) {
  console.error('schema.graphql is not what the code makes. Run: npm run schema');
  process.exit(1);
}

const introspection = minifyIntrospection(introspectionFromSchema(buildSchema(readFileSync(path, 'utf8')), { descriptions: false }));
const types = outputIntrospectionFile(introspection, { fileType: '.d.ts', shouldPreprocess: true });
writeFileSync(join(import.meta.dirname, '..', 'tui', 'schema.d.ts'), types);
