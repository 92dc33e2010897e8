import { bulkMutation } from '../graphql/bulk.ts';
import { deleteModel, deleteModelVersion } from './change.ts';

bulkMutation('deleteModels', {
  type: 'Model',
  can: 'DELETE',
  description: 'Deletes several models, as `deleteModel` does.',
  run: (context, id) => deleteModel(context, context.actor, id),
});

bulkMutation('deleteModelVersions', {
  type: 'ModelVersion',
  can: 'DELETE',
  description: 'Deletes several model versions, as `deleteModelVersion` does.',
  run: (context, id) => deleteModelVersion(context, context.actor, id),
});
