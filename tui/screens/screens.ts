/** The screens. A new one is a file and a row here: its place among the keys 1 to 9, in the palette, and in `--json` follows from it. */
import type { TypedDocumentNode } from '@urql/core';
import type { ComponentType } from 'react';
import type { Permission } from '../actions.ts';
import { JobQuery, JobScreen } from './job.tsx';
import { Jobs, JobsQuery } from './jobs.tsx';
import { Overview, OverviewQuery } from './overview.tsx';

export interface Screen {
  name: string;
  title: string;
  needs: Permission;
  /** Reached by a number; the others open from a row. */
  listed: boolean;
  /** `/` filters its rows. */
  filters: boolean;
  component: ComponentType<{ id: string }>;
  /** What `--json` prints. */
  query?: TypedDocumentNode<unknown, never>;
}

export const screens: readonly Screen[] = [
  { name: 'overview', title: 'Overview', needs: 'READ', listed: true, filters: false, component: Overview, query: OverviewQuery },
  { name: 'jobs', title: 'Jobs', needs: 'READ', listed: true, filters: true, component: Jobs, query: JobsQuery },
  { name: 'job', title: 'Job', needs: 'READ', listed: false, filters: true, component: JobScreen, query: JobQuery },
];
