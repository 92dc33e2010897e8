import { builder } from '../graphql/builder.ts';
import { maskPaths } from '../maskPaths.ts';
import { SystemType } from '../system/schema.ts';
import type { BackupState } from './schedule.ts';

const BackupsType = builder.objectRef<BackupState>('Backups').implement({
  description: 'The backups that the server makes by itself.',
  fields: (t) => ({
    lastAt: t.expose('lastAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When the newest was begun; null where there is none yet.',
    }),
    nextAt: t.expose('nextAt', { type: 'DateTime', description: 'When the next is due.' }),
    failures: t.exposeInt('failures', {
      description: 'How many have failed, or have found damaged files of the data folder, since the last one that did neither.',
    }),
    problem: t.string({
      nullable: true,
      description: 'What is wrong with the last one, and what to do; null where nothing is.',
      resolve: ({ problem }) => problem && maskPaths(problem),
    }),
  }),
});

builder.objectField(SystemType, 'backups', (t) =>
  t.field({
    type: BackupsType,
    nullable: true,
    description: 'Null where there are none, since WHETSTONE_BACKUP_FOLDER is not set.',
    resolve: (_system, _args, { backups }) => backups.state(),
  }),
);
