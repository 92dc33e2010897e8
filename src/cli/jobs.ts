/** `whetstone jobs`: the newest jobs of a server. */
import type { ClientSession } from '../../client/upload.ts';
import { ask, withoutControls } from './client.ts';

export const jobStates = ['QUEUED', 'RUNNING', 'CANCELLING', 'SUCCEEDED', 'FAILED', 'CANCELLED'];

export interface ListedJob {
  id: string;
  kind: string;
  state: string;
  createdAt: string;
  createdByName: string | null;
  model: { name: string } | null;
  datasetVersion: { number: number; dataset: { name: string } } | null;
  failure: { code: string; message: string } | null;
}

const document = `query ($first: Int!, $filter: JobFilter) {
  jobs(first: $first, filter: $filter) {
    nodes { id kind state createdAt createdByName model { name } datasetVersion { number dataset { name } } failure { code message } }
  }
}`;

export async function fetchJobs(session: ClientSession, { first, state }: { first: number; state?: string }): Promise<ListedJob[]> {
  const data = await ask(session, document, { first, filter: state ? { states: [state] } : {} });
  return (data.jobs as { nodes: ListedJob[] }).nodes;
}

/** A line for each, below the names of the columns. */
export function jobTable(jobs: readonly ListedJob[]): string {
  const rows = jobs.map(({ id, kind, state, createdAt, createdByName, model, datasetVersion, failure }) => {
    const dataset = datasetVersion && `${datasetVersion.dataset.name} v${datasetVersion.number}`;
    return [
      id,
      kind,
      state,
      createdAt.slice(0, 19).replace('T', ' '),
      createdByName ?? '',
      [model?.name, dataset].filter(Boolean).join(' on '),
      failure?.code ?? '',
    ];
  });
  const table = [['ID', 'KIND', 'STATE', 'CREATED (UTC)', 'BY', 'ABOUT', 'FAILURE'], ...rows].map((row) => row.map(withoutControls));
  const widths = (table[0] as string[]).map((_, column) => Math.max(...table.map((row) => (row[column] as string).length)));
  return table
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] as number))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
