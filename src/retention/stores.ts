/**
 * Everything that grows: in which tables and files it lies, what bounds it, how much of it is due for removal, and what removes that. A new
 * table, or a new name in the data folder, needs a place in a row here; `system.storage` shows the rows.
 */
import { count, lte, sql } from 'drizzle-orm';
import { session } from '../accounts/tables.ts';
import { finishedBackups } from '../backup/folder.ts';
import type { Bus } from '../bus.ts';
import type { Config } from '../config.ts';
import { leftInCache } from '../datasets/imageFiles.ts';
import { type Db, databaseFile, inUrgentTransaction } from '../db.ts';
import { jobEvent, metricPoint } from '../jobs/tables.ts';
import { idleFolders, sweepWork } from '../jobs/workFolders.ts';
import { isGarbage } from '../storage/blobs.ts';
import { blob, upload } from '../storage/tables.ts';
import { countDueStudyEvents, removeStudyEvents, sweepStudies } from '../tuning/sweep.ts';
import { auditRowsMax, countDueAudit, cutAudit, oldAuditFiles, removeAuditFiles } from './audit.ts';
import { type Amount, filesAt, filesAtAll, nothing } from './files.ts';
import { countDueHistory, countDueJobs, dueLogs, removeHistory, removeJobs, removeLogs } from './jobs.ts';

/** Settings that are an age in days, and what else the rows read of the configuration. */
export const ageSettings = ['auditDays', 'auditFileDays', 'jobDays', 'jobHistoryDays', 'jobLogDays', 'workDays'] as const;
export type AgeSetting = (typeof ageSettings)[number];
export type RetentionConfig = Pick<Config, 'dataDir' | 'backupFolder' | 'backupKeep' | AgeSetting>;

export interface RetentionServices {
  config: RetentionConfig;
  db: Db;
}

/** What removes tells those who follow it. */
export type SweepServices = RetentionServices & { bus: Bus };

export interface Store {
  description: string;
  /** The tables whose pages count, the one first whose rows are counted. */
  tables?: readonly [string, ...string[]];
  /** Names in the data folder. */
  files?: RegExp;
  /** What bounds it, or removes it, beside its age. */
  bound: string;
  /** The setting with its age. */
  age?: AgeSetting;
  /** In place of the rows and the files. */
  measure?(services: RetentionServices): Amount | Promise<Amount>;
  /** What the next sweep would remove; `before` is the moment of the age, or now. A number is one of rows, whose bytes are their share. */
  due?(services: RetentionServices, before: number): number | Amount | Promise<Amount>;
  /** Removes it. What has none is removed by its domain. */
  remove?(services: SweepServices, before: number): void | Promise<void>;
}

export const stores = {
  ACCOUNTS: {
    description: 'Users and API keys.',
    tables: ['user', 'api_key'],
    bound: 'They stay, since the audit log names them; 50 keys of a user work at a time.',
  },
  SESSIONS: {
    description: 'Refresh tokens of sessions.',
    tables: ['session'],
    bound: 'Until 30 days after the last refresh; a user has at most 50 open sessions.',
    due: ({ db }, now) => db.select({ n: count() }).from(session).where(lte(session.expiresAt, now)).get()?.n ?? 0,
    remove: ({ db }, now) => void inUrgentTransaction(db, (tx) => tx.delete(session).where(lte(session.expiresAt, now)).run()),
  },
  LOGIN_DELAYS: {
    description: 'Names with failed logins.',
    tables: ['login_throttle'],
    bound: 'At most 10,000 names: further ones push out the oldest.',
  },
  AUDIT: {
    description: 'The audit log.',
    tables: ['audit'],
    bound: `At most ${auditRowsMax.toLocaleString('en')} lines. What is cut is first written to AUDIT_FILES.`,
    age: 'auditDays',
    due: ({ db }, before) => countDueAudit(db, before),
    remove: cutAudit,
  },
  AUDIT_FILES: {
    description: 'Lines that were cut from the audit log: `audit/<day>.jsonl` in the data folder.',
    files: /^audit$/,
    bound: 'One file for each day.',
    age: 'auditFileDays',
    due: ({ config }, before) => filesAtAll(oldAuditFiles(config.dataDir, before)),
    remove: ({ config }, before) => removeAuditFiles(config.dataDir, before),
  },
  JOBS: {
    description: 'Jobs with their attempts and what they have measured, such as reports.',
    tables: [
      'job',
      ...[
        'attempt',
        'job_subject',
        'job_hyperparameter',
        'slot',
        'evaluation',
        'evaluation_metric',
        'evaluation_findings',
        'study',
        'trial',
        'load_test',
      ],
      ...['load_test_rate', 'benchmark_run', 'benchmark_row', 'benchmark_point', 'regression', 'report'],
    ],
    bound: 'Until `deleteJob` or `deleteStudy`. What a version needs stays.',
    age: 'jobDays',
    due: ({ db }, before) => countDueJobs(db, before),
    remove: removeJobs,
  },
  JOB_EVENTS: {
    description: 'Events of jobs.',
    tables: ['job_event'],
    bound: 'Until the job is deleted.',
    age: 'jobHistoryDays',
    due: ({ db }, before) => countDueHistory(db, jobEvent, before),
    remove: (services, before) => removeHistory(services, jobEvent, before),
  },
  STUDY_EVENTS: {
    description: 'Events of studies.',
    tables: ['study_event'],
    bound: 'Until the study is deleted.',
    age: 'jobHistoryDays',
    due: ({ db }, before) => countDueStudyEvents(db, before),
    remove: ({ db }, before) => removeStudyEvents(db, before),
  },
  CURVES: {
    description: 'Points of the curves of jobs.',
    tables: ['metric_point'],
    bound: 'Until the job is deleted.',
    age: 'jobHistoryDays',
    due: ({ db }, before) => countDueHistory(db, metricPoint, before),
    remove: (services, before) => removeHistory(services, metricPoint, before),
  },
  JOB_LOGS: {
    description: 'Logs of jobs.',
    files: /^logs$/,
    bound: 'At most 100,000 lines of a job.',
    age: 'jobLogDays',
    due: async (services, before) => filesAtAll(await dueLogs(services, before)),
    remove: removeLogs,
  },
  WORK: {
    description: 'Work folders of jobs that run, and the newest checkpoint of jobs that failed or were cancelled.',
    files: /^work$/,
    bound: 'Until the job has succeeded.',
    age: 'workDays',
    due: async (services, before) => {
      const folders = await idleFolders(services, before);
      return filesAtAll(folders.filter(({ kept }) => !kept).map(({ path }) => path));
    },
    async remove(services, before) {
      await sweepWork(services, before);
      sweepStudies(services, before);
    },
  },
  DATASETS: {
    description: 'Datasets, and the items of their versions.',
    tables: ['dataset_item', 'dataset_item_label', 'dataset', 'dataset_version'],
    bound: 'Until they are deleted. Names, numbers and hashes stay for the lineage of models.',
  },
  MODELS: {
    description: 'Models with their versions and aliases.',
    tables: ['model_version', 'model', 'model_alias'],
    bound: 'Until they are deleted. Names, numbers and hashes stay for the lineage of others.',
  },
  TAGS: { description: 'Tags.', tables: ['tag'], bound: 'At most 50 of a thing.' },
  DEPLOYMENTS: {
    description: 'Deployments with their revisions.',
    tables: ['deployment_revision', 'deployment'],
    bound: 'The last 1,000 revisions of a deployment. Names of removed ones stay for their load tests.',
  },
  BLOBS: {
    description: 'Stored files: datasets, models, checkpoints, samples, complete uploads.',
    tables: ['blob', 'artifact'],
    files: /^blobs$/,
    bound: 'Until what they belong to is deleted; what never belonged to anything for a day.',
    measure: ({ db }) => blobSum(db),
    due: ({ db }, now) => blobSum(db, isGarbage(db, now)),
  },
  UPLOADS: {
    description: 'Uploads that are not complete.',
    tables: ['upload'],
    files: /^uploads$/,
    bound: 'Until a day after the last byte; 20 of a user at a time, and 1,000 that are complete and not used.',
    due: ({ db }, now) => db.select({ n: count() }).from(upload).where(lte(upload.expiresAt, now)).get()?.n ?? 0,
  },
  CACHE: {
    description: 'Unfinished tables of where images are in the zips of datasets; images that earlier versions of Whetstone have unpacked.',
    files: /^cache$/,
    bound: 'Until the next sweep.',
    due: async ({ config }) => filesAtAll(await leftInCache(config.dataDir)),
  },
  WEBHOOKS: {
    description: 'Webhooks with their deliveries.',
    tables: ['webhook_delivery', 'webhook'],
    bound: 'At most 20, each with its last 1,000 deliveries.',
  },
  ALERTS: {
    description: 'Rules, states and events of alerts.',
    tables: ['alert_event', 'alert', 'alert_rule'],
    bound: 'The last 10,000 events.',
  },
  FREE_PAGES: {
    description: 'Pages of the database that hold nothing: the next rows use them.',
    bound: 'The database file does not become smaller. A restored backup has none.',
    measure: ({ db }) => {
      const [pages, size] = ['freelist_count', 'page_size'].map((name) => Number(db.$client.pragma(name, { simple: true })));
      return { count: pages ?? 0, sizeBytes: (pages ?? 0) * (size ?? 0) };
    },
  },
  DATABASE_LOG: {
    description: 'The write-ahead log of the database.',
    files: new RegExp(`^${databaseFile}-(wal|shm)$`),
    bound: 'It is cut to 64 MiB once its changes are in the database.',
  },
  UPGRADE_COPIES: {
    description: 'The copy of the database from before the last upgrade.',
    files: /^whetstone-before-upgrade-/,
    bound: 'One.',
  },
  BACKUPS: {
    description:
      'Backups in WHETSTONE_BACKUP_FOLDER. Files that the data folder has under another name too, on the same disk, do not count.',
    bound: 'WHETSTONE_BACKUP_KEEP is how many stay.',
    measure: ({ config }) => (config.backupFolder ? filesAt(config.backupFolder, true) : nothing),
    due: async ({ config: { backupFolder, backupKeep } }) =>
      backupFolder ? filesAtAll(finishedBackups(backupFolder).slice(0, -backupKeep)) : nothing,
  },
  PROCESSES: {
    description: 'Files of processes that run: the inference host, and children.',
    files: /^(inference|children)$/,
    bound: 'Until the process ends, or the next start.',
  },
  FIXED: {
    description: 'Files that do not grow: keys, locks, and the reserve for a full disk.',
    files: /^(reserve|server\.lock(-journal)?|link-key|signing-key\.pem|bootstrap-token)$/,
    bound: 'Their size.',
  },
} as const satisfies Record<string, Store>;

export type StoreName = keyof typeof stores;

function blobSum(db: Db, which?: ReturnType<typeof isGarbage>): Amount {
  const sizeBytes = sql<number>`coalesce(sum(${blob.sizeBytes}), 0)`;
  return db.select({ count: count(), sizeBytes }).from(blob).where(which).get() ?? nothing;
}
