/** The machine as the frame follows it, with what it was in the last two minutes. */
import { createContext, useContext } from 'react';
import { graphql, type ResultOf } from '../graphql.ts';
import { subjectFields } from '../screens/subject.ts';

export const SystemSubscription = graphql(`
  subscription TuiSystem {
    system(intervalMs: 1000) {
      version
      queuedJobs
      runningJobs
      slots { n job { id state createdByName startedAt ${subjectFields} } }
      cpu { cores utilizationPercent loadAverage1m }
      memory { totalBytes freeBytes serverRssBytes }
      disk { totalBytes freeBytes }
      gpus { index name utilizationPercent memoryTotalBytes memoryUsedBytes temperatureCelsius powerWatts }
      gpusReason
    }
  }
`);

export type SystemNow = ResultOf<typeof SystemSubscription>['system'];

export const SystemContext = createContext<SystemNow[]>([]);

export const useSystemHistory = (): SystemNow[] => useContext(SystemContext);
