import { bulkMutation } from '../graphql/bulk.ts';
import { deleteDataset, deleteDatasetVersion } from './change.ts';

bulkMutation('deleteDatasets', {
  type: 'Dataset',
  can: 'DELETE',
  description: 'Deletes several datasets, as `deleteDataset` does.',
  run: (context, id) => deleteDataset(context, context.actor, id),
});

bulkMutation('deleteDatasetVersions', {
  type: 'DatasetVersion',
  can: 'DELETE',
  description: 'Deletes several dataset versions, as `deleteDatasetVersion` does.',
  run: (context, id) => deleteDatasetVersion(context, context.actor, id),
});
