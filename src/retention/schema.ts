import { variableOf } from '../config.ts';
import { ApiError } from '../errors.ts';
import { builder, enumValues } from '../graphql/builder.ts';
import { SystemType } from '../system/schema.ts';
import type { StoreUse } from './measure.ts';
import { storageUse } from './storageUse.ts';
import { type Store, type StoreName, stores } from './stores.ts';

const StorageNameType = builder.enumType('StorageName', {
  description: 'What grows with use.',
  values: enumValues<StoreName>(
    Object.fromEntries(Object.entries(stores).map(([name, { description }]) => [name, description])) as Record<StoreName, string>,
  ),
});

const StorageUseType = builder.objectRef<StoreUse>('StorageUse').implement({
  description: 'What one thing uses of the disk, what bounds it, and what is due for removal.',
  fields: (t) => ({
    name: t.expose('name', { type: StorageNameType, description: 'What it is.' }),
    count: t.expose('count', { type: 'SafeInt', description: 'Rows of the database, or files.' }),
    sizeBytes: t.expose('sizeBytes', { type: 'SafeInt', description: 'Bytes on the disk; of rows with their indexes.' }),
    bound: t.string({ description: 'What bounds it, beside its age.', resolve: ({ name }) => stores[name].bound }),
    setting: t.string({
      nullable: true,
      description: 'The setting (environment variable) with the days that it stays; null where it does not go by its age.',
      resolve: ({ name }) => ageOf(name) && variableOf(ageOf(name) as string),
    }),
    days: t.int({
      nullable: true,
      description: 'Value of the setting; null where nothing goes by its age.',
      resolve: ({ name }, _args, { config }) => {
        const age = ageOf(name);
        return age && config[age];
      },
    }),
    dueCount: t.field({
      type: 'SafeInt',
      description: 'How many the next sweep removes: within the hour.',
      resolve: ({ due }) => due.count,
    }),
    dueBytes: t.field({ type: 'SafeInt', description: 'Their bytes; of rows their share.', resolve: ({ due }) => due.sizeBytes }),
  }),
});

const ageOf = (name: StoreName) => (stores[name] as Store).age;

builder.objectField(SystemType, 'storage', (t) =>
  t.field({
    type: [StorageUseType],
    description: 'What uses the disk. It is measured every 10 seconds at most, less often where that takes long.',
    args: {
      days: t.arg.int({
        description:
          'Instead of the settings: what would be removed if everything that goes by its age stayed for so many days, 2 to 36500.',
      }),
    },
    extensions: { size: Object.keys(stores).length, cost: 100 },
    resolve: (_system, { days }, { config }) => {
      if (days != null && (days < 2 || days > 36_500)) throw new ApiError('LIMIT', `\`days\` is between 2 and 36500; it is ${days}.`);
      return storageUse(config, days ?? null);
    },
  }),
);
