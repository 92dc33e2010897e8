import type { Example } from './example.ts';

/** Benchmarks, deployments and reports. */
export const servingExamples: Example[] = [
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
    query: `# Tries a deployment with an image: the text that
#   base64 -w0 seven.png
# prints.
mutation Infer($input: InferInput!) {
  infer(input: $input) {
    prediction {
      revision
      classes {
        label
        probability
      }
      detections {
        label
        score
        x
        y
        width
        height
      }
    }
    userErrors {
      field
      message
    }
  }
}
`,
    variables: { input: { deployment: 'digits', image: '' } },
  },
  {
    query: `# The requests to the deployments, live.
subscription InferenceStats {
  inferenceStats(intervalMs: 1000) {
    queuedRequests
    deployments {
      name
      revision
      answered
      refused
      expired
      queueMs
      computeMs
    }
  }
}
`,
  },
  {
    query: `# An API key for a program. Its "secret" is shown this
# once; "deployments: null" is for all of them.
mutation CreateApiKey($input: CreateApiKeyInput!) {
  createApiKey(input: $input) {
    apiKey {
      id
      prefix
      expiresAt
    }
    secret
    userErrors {
      field
      message
    }
  }
}
`,
    variables: { input: { name: 'my service', scopes: ['INFER'], deployments: ['digits'], expiresInDays: 90 } },
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
];
