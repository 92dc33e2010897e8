import { type GraphQLInputType, isEnumType, isInputObjectType, isListType, isNonNullType } from 'graphql';

/** A value that fits an input type, made of as little as is required. */
export function sample(type: GraphQLInputType): unknown {
  if (isNonNullType(type)) return sample(type.ofType);
  if (isListType(type)) return [];
  if (isEnumType(type)) return type.getValues()[0]?.name;
  if (isInputObjectType(type)) {
    const all = Object.values(type.getFields());
    const needed = type.isOneOf ? all.slice(0, 1) : all.filter((f) => isNonNullType(f.type) && f.defaultValue === undefined);
    return Object.fromEntries(needed.map((f) => [f.name, sample(f.type)]));
  }
  return { Boolean: false, Int: 1, Float: 1, SafeInt: 1, DateTime: '2026-01-01T00:00:00.000Z' }[type.name] ?? 'x';
}
