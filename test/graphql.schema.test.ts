import { type GraphQLNamedType, isEnumType, isInputObjectType, isInterfaceType, isObjectType } from 'graphql';
import { expect, test } from 'vitest';
import { schema } from '../src/graphql/schema.ts';

const builtIn = (type: GraphQLNamedType) => type.name.startsWith('__') || ['String', 'Int', 'Float', 'Boolean', 'ID'].includes(type.name);

test('every type, field, argument and enum value has a description', () => {
  const missing: string[] = [];
  const need = (name: string, element: { description?: string | null }) => {
    if (!element.description) missing.push(name);
  };
  for (const type of Object.values(schema.getTypeMap()).filter((t) => !builtIn(t))) {
    need(type.name, type);
    if (isEnumType(type)) for (const value of type.getValues()) need(`${type.name}.${value.name}`, value);
    if (isObjectType(type) || isInterfaceType(type) || isInputObjectType(type)) {
      for (const field of Object.values(type.getFields())) {
        need(`${type.name}.${field.name}`, field);
        for (const argument of 'args' in field ? field.args : []) need(`${type.name}.${field.name}(${argument.name})`, argument);
      }
    }
  }
  expect(missing).toEqual([]);
});
