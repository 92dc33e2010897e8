/** A tab that GraphiQL opens with. Its title is the name of the operation. */
export interface Example {
  query: string;
  variables?: Record<string, unknown>;
}

/** One row for each tab: an example of every area of the API. */
export const examples: Example[] = [
  {
    query: `# 1. Log in above: it counts for all tabs.
# 2. Ctrl-Enter runs, Ctrl-Space completes.
# 3. The book on the left is the manual.
query Viewer {
  viewer {
    name
    role
    permissions
    sessions {
      client
      refreshedAt
      expiresAt
      current
    }
  }
}
`,
  },
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
    variables: { id: '' },
  },
  {
    query: `# For administrators: all users by name.
query Users($after: String) {
  users(first: 20, after: $after) {
    nodes {
      id
      name
      role
      createdAt
      disabledAt
    }
    pageInfo {
      hasNextPage
      endCursor
    }
  }
}
`,
    variables: { after: null },
  },
  {
    query: `# For administrators: who did what, newest first.
query AuditLog($filter: AuditFilter) {
  auditLog(first: 20, filter: $filter) {
    nodes {
      at
      actor {
        name
      }
      action
      outcome
      targetType
      targetId
      detail
    }
    pageInfo {
      hasNextPage
      endCursor
    }
  }
}
`,
    variables: { filter: { outcome: 'OK' } },
  },
  {
    query: `# How a program logs in. The access token goes
# into the header "Authorization: Bearer <token>",
# on a WebSocket into the connection parameters.
mutation Login($input: LoginInput!) {
  login(input: $input) {
    credentials {
      accessToken
      accessTokenExpiresAt
      refreshToken
    }
    userErrors {
      field
      message
    }
  }
}
`,
    variables: { input: { name: '', password: '' } },
  },
  {
    query: `# On a new server: creates the first administrator.
# The token is in the file "bootstrap-token" of the
# data folder.
mutation Bootstrap($input: BootstrapInput!) {
  bootstrap(input: $input) {
    user {
      name
      role
    }
    userErrors {
      field
      message
    }
  }
}
`,
    variables: { input: { token: '', name: '', password: '' } },
  },
];
