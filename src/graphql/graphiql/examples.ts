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
    variables: { id: '', after: 0 },
  },
  {
    query: `# Datasets and what is in their newest version.
query Datasets($filter: DatasetFilter) {
  datasets(first: 20, filter: $filter) {
    nodes {
      name
      task
      version {
        id
        number
        state
        classes {
          name
        }
        counts {
          train
          val
          test
        }
        items(first: 3, split: VAL) {
          nodes {
            path
            class
            thumbnailUrl
          }
        }
        downloadUrl
      }
    }
    pageInfo {
      hasNextPage
      endCursor
    }
  }
}
`,
    variables: { filter: { nameContains: '' } },
  },
  {
    query: `# Makes a dataset of an uploaded zip. The upload,
# which answers "uploadId" and "sha256":
#   curl --data-binary @digits.zip \\
#     -H "Authorization: Bearer $TOKEN" \\
#     "$SERVER/uploads?filename=digits.zip"
mutation CreateDataset($input: CreateDatasetInput!) {
  createDataset(input: $input) {
    datasetVersion {
      number
      state
      job {
        id
      }
    }
    userErrors {
      field
      message
    }
  }
}
`,
    variables: { input: { name: 'digits', task: 'CLASSIFICATION', uploadId: '', sha256: '', splitSeed: 0, valShare: 0.2, testShare: 0 } },
  },
  {
    query: `# Trains a model and converts it to ONNX. Take the
# dataset version's "id" from the tab Datasets, and
# follow the job in the tab JobEvents.
mutation StartTraining($input: StartTrainingInput!) {
  startTraining(input: $input) {
    job {
      id
      state
      queuePosition
    }
    userErrors {
      field
      message
    }
  }
}
`,
    variables: {
      input: { preset: 'resnet50', datasetVersionId: '', modelName: 'digits', seed: 0, device: 'AUTO', hyperparameters: { epochs: 5 } },
    },
  },
  {
    query: `# Models with their newest version and its lineage.
query Models($filter: ModelFilter) {
  models(first: 20, filter: $filter) {
    nodes {
      name
      task
      aliases {
        name
        version {
          number
        }
      }
      version {
        id
        number
        state
        format
        precision
        origin
        sizeBytes
        labels
        signature {
          parameters
          inputs {
            name
            elementType
            shape
          }
          outputs {
            name
            elementType
            shape
          }
        }
        lineage {
          number
          model {
            name
          }
        }
        downloadUrl
      }
    }
    pageInfo {
      hasNextPage
      endCursor
    }
  }
}
`,
    variables: { filter: { format: 'ONNX' } },
  },
  {
    query: `# Makes a model version of an uploaded file: .onnx, or
# the weights of a preset as .safetensors or .pt.
mutation CreateModel($input: CreateModelInput!) {
  createModel(input: $input) {
    modelVersion {
      number
      state
      job {
        id
      }
    }
    userErrors {
      field
      message
    }
  }
}
`,
    variables: { input: { name: 'digits', task: 'CLASSIFICATION', uploadId: '', sha256: '' } },
  },
  {
    query: `# Measures ONNX versions ("id" from the tab Models)
# at each batch size with each number of threads,
# alone on the machine. "dryRun" only says how long.
mutation StartBenchmark($input: StartBenchmarkInput!) {
  startBenchmark(input: $input) {
    configurations
    estimatedDurationMs
    job {
      id
      state
    }
    userErrors {
      field
      message
    }
  }
}
`,
    variables: { input: { modelVersionIds: [''], batchSizes: [1, 4], intraOpThreads: [1, 2], profile: 'QUICK', dryRun: true } },
  },
  {
    query: `# Puts an ONNX version ("id" from the tab Models) behind a name.
# It takes the requests when it is warm. An API key for your
# service comes from "createApiKey". "settings" says how to serve
# it, or "benchmarkJobId" takes what was measured.
mutation Deploy($input: DeployInput!) {
  deploy(input: $input) {
    deployment {
      name
      loading {
        number
      }
      snippet(language: CURL)
    }
    userErrors {
      field
      message
    }
  }
}
`,
    variables: { input: { name: 'digits', modelVersionId: '' } },
  },
  {
    query: `# What is deployed, and how its host is.
query Deployments {
  inferenceHealth {
    state
    url
    restarts
    reason
  }
  deployments(first: 20) {
    nodes {
      name
      active {
        number
        modelVersion {
          number
          sha256
        }
      }
      revisions {
        number
        state
        reason
      }
      snippet(language: PYTHON)
    }
  }
}
`,
  },
  {
    query: `# What the benchmarks say, newest first.
query Reports {
  reports(first: 5) {
    nodes {
      id
      verdict
      sha256
      simple {
        headline
        points
      }
      technical {
        rows {
          n
          verdict
          batchSize
          intraOpThreads
          itemsPerSecond
        }
      }
      export(format: MARKDOWN) {
        content
      }
    }
    pageInfo {
      hasNextPage
      endCursor
    }
  }
}
`,
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
