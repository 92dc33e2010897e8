import { DatasetType, DatasetVersionType } from '../datasets/schema.ts';
import { builder, type PayloadFields, PayloadType, payload, typedIdOf } from '../graphql/builder.ts';
import { JobType } from '../jobs/schema.ts';
import { ModelType, ModelVersionType } from '../models/schema.ts';
import type { Tag } from './tables.ts';
import { setTags, type Taggable, taggable, tagsMax, tagsOf } from './tags.ts';

const TagType = builder.objectRef<Tag>('Tag').implement({
  description: 'What somebody said about something, by a key: `team: vision`.',
  fields: (t) => ({
    key: t.exposeString('key', { description: 'Its key.' }),
    value: t.exposeString('value', { description: 'Its value.' }),
  }),
});

for (const type of [DatasetType, DatasetVersionType, JobType, ModelType, ModelVersionType]) {
  builder.objectFields(type, (t) => ({
    tags: t.field({
      type: [TagType],
      description: 'What people said about it, by key.',
      extensions: { size: 5 },
      resolve: ({ id }, _args, { db }) => tagsOf(db, id),
    }),
  }));
}

const TagInputType = builder.inputType('TagInput', {
  description: 'A tag to set or to remove.',
  fields: (t) => ({
    key: t.string({ required: true, description: '1 to 100 letters (of any script), digits or . _ / - with a letter or digit first.' }),
    value: t.string({ description: 'At most 500 characters, on one line; null removes the tag.' }),
  }),
});

builder.relayMutationField(
  'setTags',
  {
    inputFields: (t) => ({
      subjectId: t.id({ required: true, description: 'A dataset, a model, a version of one of them, or a job.' }),
      tags: t.field({ type: [TagInputType], required: true, description: `At most ${tagsMax}. Tags with other keys stay as they are.` }),
    }),
  },
  {
    description: `Sets or removes tags of one thing, which has at most ${tagsMax}. They change nothing of what it is: hashes and lineage stay.`,
    authScopes: { can: 'RUN_JOBS' },
    resolve: (_root, { input }, context) =>
      payload(() => {
        const { type, id } = typedIdOf(Object.keys(taggable) as Taggable[], input.subjectId);
        return setTags(context, context.actor, type, id, input);
      }),
  },
  {
    interfaces: [PayloadType],
    outputFields: (t: PayloadFields<Tag[]>) => ({
      tags: t.field({
        type: [TagType],
        nullable: true,
        description: 'All that it has now, by key.',
        extensions: { size: 5 },
        resolve: (p) => p.result,
      }),
    }),
  },
);
