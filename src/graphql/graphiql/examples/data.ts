import type { Example } from './example.ts';

/** Datasets, trainings and models. */
export const dataExamples: Example[] = [
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
#   curl -X POST -T digits.zip \\
#     -H "Authorization: Bearer $WHETSTONE_TOKEN" \\
#     "$WHETSTONE_URL/uploads?filename=digits.zip"
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
    query: `# What can be trained, with which hyperparameters.
query Presets {
  presets {
    name
    title
    task
    hyperparameters {
      name
      type
      default
      minimum
      maximum
      values
      description
    }
  }
}
`,
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
    query: `# Measures a model version on a split of a dataset version.
# Take both from the tabs Models and Datasets.
mutation StartEvaluation($input: StartEvaluationInput!) {
  startEvaluation(input: $input) {
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
    variables: { input: { modelVersionId: '', datasetVersionId: '', split: 'VAL' } },
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
];
