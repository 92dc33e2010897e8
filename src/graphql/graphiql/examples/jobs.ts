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
    query: `# The newest jobs, with why they failed. "text" is part of a
# name of a model, a dataset or a user, or of a failure.
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
    variables: { filter: { states: ['QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED'], text: '' } },
  },
  {
    query: `# A job with what it works on, what it has made and its
# curves. Take an "id" from the tab Jobs.
query Job($id: ID!) {
  job(id: $id) {
    kind
    state
    spec
    datasetVersion {
      number
      dataset {
        name
      }
    }
    modelVersions {
      id
      number
      model {
        name
      }
    }
    evaluation {
      top1
      map5095
      findings {
        labelErrors {
          count
        }
        confusedPairs(first: 3) {
          class
          predictedClass
          count
        }
      }
    }
    children {
      id
      kind
      state
    }
    metrics(maxPoints: 100) {
      name
      epochs
      values
    }
  }
}
`,
    variables: { id: '' },
  },
  {
    query: `# What happens to a job: first what is stored, then
# live, the newest on top. Take an "id" from the tab Jobs.
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
  {
    query: `# Stops a job, with the jobs that it has made. Take an
# "id" from the tab Jobs. "retryJob" starts it again.
mutation CancelJob($input: CancelJobInput!) {
  cancelJob(input: $input) {
    job {
      state
    }
    userErrors {
      field
      message
    }
  }
}
`,
    variables: { input: { jobId: '' } },
  },
];
