/** The screens. A new one is a file, a name in client/tui.ts and a row here: its number, its place in the palette, and `--json` follow from it. */
import type { TypedDocumentNode } from '@urql/core';
import type { ComponentType } from 'react';
import type { ScreenName } from '../../client/tui.ts';
import { type ActionName, actions, type Permission } from '../actions.ts';
import { Alerts, AlertsQuery } from './alerts.tsx';
import { ApiKeys, ApiKeysQuery } from './apiKeys.tsx';
import { Audit, AuditQuery } from './audit.tsx';
import { Benchmarks, BenchmarksQuery } from './benchmarks.tsx';
import { Compare, CompareQuery } from './compare.tsx';
import { DatasetQuery, DatasetScreen, Datasets, DatasetsQuery } from './datasets.tsx';
import { DeploymentQuery, DeploymentScreen, Deployments, DeploymentsQuery } from './deployments.tsx';
import { Events } from './events.tsx';
import { DeploymentHistory, DeploymentHistoryQuery, ModelHistory, ModelHistoryQuery } from './history.tsx';
import { Infer } from './infer.tsx';
import { JobQuery, JobScreen } from './job.tsx';
import { Jobs, JobsQuery } from './jobs.tsx';
import { Measurements, MeasurementsQuery } from './measurements.tsx';
import { ModelQuery, ModelScreen, Models, ModelsQuery } from './models.tsx';
import { Overview, OverviewQuery } from './overview.tsx';
import { Pictures, PicturesQuery } from './pictures.tsx';
import { ReportQuery, ReportScreen, Reports, ReportsQuery } from './reports.tsx';
import { type FormName, formScreen, forms } from './start.tsx';
import { Storage, StorageQuery } from './storage.tsx';
import { uploadScreen } from './upload.tsx';
import { Password, UserQuery, UserScreen, Users, UsersQuery } from './users.tsx';
import { WebhookQuery, WebhookScreen, Webhooks, WebhooksQuery } from './webhooks.tsx';

export type Screen = {
  name: ScreenName;
  title: string;
  /** What the row of screens calls it where all titles do not fit. */
  short?: string;
  /** LISTED has a number, PALETTE is reached by its name, ROW is opened for a row and needs its id. */
  from: 'LISTED' | 'PALETTE' | 'ROW';
  /** `/` filters its rows. */
  filters?: boolean;
  component: ComponentType<{ id: string }>;
  /** What `--json` prints. */
  query?: TypedDocumentNode<unknown, never>;
} & (
  | /** What its reader must be allowed. */ { needs: Permission; does?: undefined }
  | /** A form: what it does must be allowed. */ { needs?: undefined; does: ActionName }
);

export const permissionFor = ({ needs, does }: Screen): Permission => needs ?? actions[does].needs;

const formRow = (name: FormName): Screen => {
  const { title, action } = forms[name];
  return { name, title, does: action, from: 'PALETTE', component: formScreen(name) };
};

export const screens: readonly Screen[] = [
  { name: 'overview', title: 'Overview', needs: 'READ', from: 'LISTED', component: Overview, query: OverviewQuery },
  { name: 'jobs', title: 'Jobs', needs: 'READ', from: 'LISTED', filters: true, component: Jobs, query: JobsQuery },
  {
    name: 'datasets',
    title: 'Datasets',
    short: 'Data',
    needs: 'READ',
    from: 'LISTED',
    filters: true,
    component: Datasets,
    query: DatasetsQuery,
  },
  { name: 'models', title: 'Models', needs: 'READ', from: 'LISTED', filters: true, component: Models, query: ModelsQuery },
  {
    name: 'benchmarks',
    title: 'Benchmarks',
    short: 'Bench',
    needs: 'READ',
    from: 'LISTED',
    filters: true,
    component: Benchmarks,
    query: BenchmarksQuery,
  },
  { name: 'reports', title: 'Reports', needs: 'READ', from: 'LISTED', filters: true, component: Reports, query: ReportsQuery },
  {
    name: 'deployments',
    title: 'Deployments',
    short: 'Deploy',
    needs: 'READ',
    from: 'LISTED',
    filters: true,
    component: Deployments,
    query: DeploymentsQuery,
  },
  { name: 'events', title: 'Events', needs: 'READ', from: 'LISTED', component: Events },
  { name: 'users', title: 'Users', needs: 'MANAGE_USERS', from: 'LISTED', filters: true, component: Users, query: UsersQuery },
  { name: 'compare', title: 'Compare runs', needs: 'READ', from: 'PALETTE', filters: true, component: Compare, query: CompareQuery },
  { name: 'keys', title: 'API keys', needs: 'READ', from: 'PALETTE', filters: true, component: ApiKeys, query: ApiKeysQuery },
  { name: 'alerts', title: 'Alerts', needs: 'READ', from: 'PALETTE', filters: true, component: Alerts, query: AlertsQuery },
  {
    name: 'webhooks',
    title: 'Webhooks',
    needs: 'CONFIGURE',
    from: 'PALETTE',
    filters: true,
    component: Webhooks,
    query: WebhooksQuery,
  },
  { name: 'audit', title: 'Audit log', needs: 'READ_AUDIT', from: 'PALETTE', filters: true, component: Audit, query: AuditQuery },
  { name: 'storage', title: 'Storage', needs: 'READ', from: 'PALETTE', filters: true, component: Storage, query: StorageQuery },
  { name: 'job', title: 'Job', needs: 'READ', from: 'ROW', filters: true, component: JobScreen, query: JobQuery },
  { name: 'dataset', title: 'Dataset', needs: 'READ', from: 'ROW', filters: true, component: DatasetScreen, query: DatasetQuery },
  { name: 'pictures', title: 'Pictures', needs: 'READ', from: 'ROW', component: Pictures, query: PicturesQuery },
  { name: 'model', title: 'Model', needs: 'READ', from: 'ROW', filters: true, component: ModelScreen, query: ModelQuery },
  {
    name: 'measurements',
    title: 'Benchmark',
    needs: 'READ',
    from: 'ROW',
    filters: true,
    component: Measurements,
    query: MeasurementsQuery,
  },
  { name: 'report', title: 'Report', needs: 'READ', from: 'ROW', component: ReportScreen, query: ReportQuery },
  { name: 'deployment', title: 'Deployment', needs: 'READ', from: 'ROW', component: DeploymentScreen, query: DeploymentQuery },
  { name: 'model-history', title: 'History', needs: 'READ', from: 'ROW', filters: true, component: ModelHistory, query: ModelHistoryQuery },
  {
    name: 'deployment-history',
    title: 'History',
    needs: 'READ',
    from: 'ROW',
    filters: true,
    component: DeploymentHistory,
    query: DeploymentHistoryQuery,
  },
  { name: 'webhook', title: 'Webhook', needs: 'CONFIGURE', from: 'ROW', filters: true, component: WebhookScreen, query: WebhookQuery },
  { name: 'user', title: 'User', needs: 'MANAGE_USERS', from: 'ROW', component: UserScreen, query: UserQuery },
  { name: 'password', title: 'Change your password', does: 'changePassword', from: 'PALETTE', component: Password },
  { name: 'infer', title: 'Try an image', does: 'infer', from: 'ROW', component: Infer },
  {
    name: 'upload-dataset',
    title: 'Upload a dataset',
    does: 'createDataset',
    from: 'PALETTE',
    component: uploadScreen('dataset'),
  },
  { name: 'upload-model', title: 'Upload a model', does: 'createModel', from: 'PALETTE', component: uploadScreen('model') },
  ...(Object.keys(forms) as FormName[]).map(formRow),
];
