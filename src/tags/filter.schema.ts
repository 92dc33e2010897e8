import { builder } from '../graphql/builder.ts';

export const TagFilterType = builder.inputType('TagFilter', {
  description: 'A tag that things in a list must have.',
  fields: (t) => ({
    key: t.string({ required: true, description: 'Its key.' }),
    value: t.string({ description: 'Its value; any, unless told otherwise.' }),
  }),
});
