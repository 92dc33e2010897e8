import { bulkMutation } from '../graphql/bulk.ts';
import { announceMove } from './attempt.ts';
import { deleteJob } from './delete.ts';
import { cancelJob } from './moves.ts';

bulkMutation('cancelJobs', {
  type: 'Job',
  can: 'RUN_JOBS',
  description: 'Stops several jobs, as `cancelJob` does.',
  run(context, id) {
    const move = cancelJob(context.db, context.jobKinds, context.actor, id);
    if (move) announceMove(context, move);
  },
});

bulkMutation('deleteJobs', {
  type: 'Job',
  can: 'DELETE',
  description: 'Deletes several jobs that have ended, as `deleteJob` does.',
  run: (context, id) => deleteJob(context, context.actor, id),
});
