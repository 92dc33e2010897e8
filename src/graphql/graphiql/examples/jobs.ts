import type { Example } from './example.ts';

/** The machine and its jobs. */
export const jobsExamples: Example[] = [
  {
    query: `# The machine and the queue, live.
subscription System {
  system(intervalMs: 1000) {
    queuedJobs
    runningJobs
    slots {
      n
      job {
        id
        kind
      }
    }
    cpu {
      cores
      utilizationPercent
    }
    memory {
      freeBytes
      serverRssBytes
    }
    disk {
      freeBytes
      blobBytes
    }
    gpus {
      name
      utilizationPercent
      memoryUsedBytes
    }
    gpusReason
  }
}
`,
  },
  {
    query: `# The newest jobs, with why they failed.
query Jobs($filter: JobFilter) {
  jobs(first: 20, filter: $filter) {
    nodes {
      id
      kind
      state
      queuePosition
      createdAt
      startedAt
      endedAt
      createdByName
      failure {
        code
        message
      }
    }
    pageInfo {
      hasNextPage
      endCursor
    }
  }
}
`,
    variables: { filter: { states: ['QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED'] } },
  },
  {
    query: `# What happens to a job: first what is stored, then
# live. Take an "id" from the tab Jobs.
subscription JobEvents($id: ID!, $after: SafeInt! = 0) {
  jobEvents(id: $id, after: $after) {
    __typename
    seq
    at
    attempt
    ... on JobStateEvent {
      state
      failure {
        code
        message
      }
    }
    ... on JobPhaseEvent {
      phase
      total
    }
    ... on JobEpochEvent {
      epoch
      epochs
      metrics {
        name
        value
      }
    }
    ... on JobWarningEvent {
      message
    }
  }
}
`,
    variables: { id: '', after: 0 },
  },
];
