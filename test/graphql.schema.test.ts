import {
  type GraphQLNamedType,
  getNamedType,
  getNullableType,
  isEnumType,
  isInputObjectType,
  isInterfaceType,
  isLeafType,
  isListType,
  isObjectType,
} from 'graphql';
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

test('every list of objects says how many it may have: by `first`, by `ids`, or with a size for the limit', () => {
  const unbounded: string[] = [];
  for (const type of Object.values(schema.getTypeMap()).filter((t) => !builtIn(t))) {
    if (!(isObjectType(type) || isInterfaceType(type)) || /Connection$/.test(type.name)) continue;
    for (const { name, type: of, args, extensions } of Object.values(type.getFields())) {
      const isList = isListType(getNullableType(of)) && !isLeafType(getNamedType(of));
      const isBounded = extensions.size !== undefined || args.some((arg) => arg.name === 'first' || arg.name === 'ids');
      if (isList && !isBounded) unbounded.push(`${type.name}.${name}`);
    }
  }
  expect(unbounded).toEqual([]);
});
