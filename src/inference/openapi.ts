/** The routes of the inference host as an OpenAPI 3.1 document: `GET /openapi.json`. */
import type { z } from 'zod';
import { datatypes } from '../engine/datatypes.ts';
import { bytes, fromZod, headers, integer, type JsonSchema, json, listOf, object, parameter, schemaRef, text } from '../openapiParts.ts';
import { codeVersion } from '../version.ts';
import { Classes, Detections, PredictQuery } from './answers.ts';
import { InferJson } from './v2.ts';

// ---------------------------------------------------------------------------------------------------------------- schemas

const datatype: JsonSchema = { type: 'string', enum: Object.keys(datatypes) };
const shape = listOf({ type: 'integer', minimum: -1 }, 'Sizes; -1 where any will do.');
const counted = object({ count: integer(), ns: integer('Nanoseconds, all of them together.') });
const ports = listOf(object({ name: text(), datatype, shape }));
const configPorts = listOf(
  object({ name: text(), data_type: { type: 'string', enum: Object.keys(datatypes).map((name) => `TYPE_${name}`) }, dims: shape }),
);
const answered = { model_name: text(), model_version: text('Its revision number.') };

/** An answer of `predict`. */
const predicted = (found: z.ZodObject): JsonSchema => {
  const { properties } = fromZod(found) as { properties: Record<string, JsonSchema> };
  return object({ ...answered, ...properties });
};

const schemas: Record<string, JsonSchema> = {
  Nothing: object({}),
  Error: object({ error: text('What is wrong and what to do.') }),
  ServerMetadata: object({ name: text(), version: text(), extensions: listOf(text()) }),
  ModelMetadata: object({ name: text(), versions: listOf(text()), platform: text(), inputs: ports, outputs: ports }),
  ModelConfiguration: object(
    {
      name: text(),
      platform: text(),
      backend: text(),
      max_batch_size: integer('0: the model has no batch axis; else `dims` are without it.'),
      input: configPorts,
      output: configPorts,
      dynamic_batching: object({ preferred_batch_size: listOf(integer()) }),
      model_transaction_policy: object({ decoupled: { type: 'boolean' } }),
      response_cache: object({ enable: { type: 'boolean' } }),
    },
    ['dynamic_batching'],
  ),
  Statistics: object({
    model_stats: listOf(
      object({
        name: text(),
        version: text(),
        last_inference: integer('Unix milliseconds; 0: never.'),
        inference_count: integer('Items.'),
        execution_count: integer('Runs.'),
        inference_stats: object(
          Object.fromEntries(
            ['success', 'fail', 'queue', 'compute_input', 'compute_infer', 'compute_output', 'cache_hit', 'cache_miss'].map((part) => [
              part,
              counted,
            ]),
          ),
        ),
        batch_stats: listOf(object({ batch_size: integer(), compute_input: counted, compute_infer: counted, compute_output: counted })),
      }),
    ),
  }),
  RepositoryIndex: listOf(object({ name: text(), version: text(), state: text(), reason: text() })),
  InferRequest: fromZod(InferJson, 'input'),
  InferResponse: object(
    {
      ...answered,
      id: text('Of the request.'),
      outputs: listOf(
        object(
          {
            name: text(),
            datatype,
            shape: listOf(integer()),
            data: { type: 'array', description: 'Values in row-major order; null where one is not finite.' },
            parameters: object({ binary_data_size: integer('Bytes behind the JSON, in place of `data`.') }),
          },
          ['data', 'parameters'],
        ),
      ),
    },
    ['id'],
  ),
  Classes: predicted(Classes),
  Detections: predicted(Detections),
};

// ---------------------------------------------------------------------------------------------------------------- answers

/** docs/serving.md, "When a request fails". */
const failures = {
  400: 'A wrong name, type, shape or value; not an image.',
  401: 'No API key or access token, or one that is wrong, has expired or was revoked.',
  403: 'The key is not for this deployment; or its user may not infer.',
  404: 'There is no such model or version.',
  413: 'The body, its JSON or the image is too large.',
  415: 'An unknown Content-Encoding.',
  422: 'The model takes no images: it has no preprocessing, or its outputs are neither classes nor boxes.',
  429: 'By the prediction the answer would come after the deadline, or there is no room. Nothing was computed.',
  500: 'The model fails on this input.',
  503: 'The models are being loaded or the accounts fetched, or the host is stopping.',
  504: 'It was let in, but its deadline has passed.',
};

type Status = keyof typeof failures;
const retryAfter = headers({ 'retry-after': 'Seconds.' });
const statusHeaders: Partial<Record<Status, object>> = {
  401: headers({ 'www-authenticate': 'Bearer.' }),
  429: retryAfter,
  503: retryAfter,
};
const failed = (...statuses: Status[]) =>
  Object.fromEntries(
    statuses.map((status) => [
      status,
      {
        description: failures[status],
        headers: statusHeaders[status],
        content: json(schemaRef('Error')),
      },
    ]),
  );
const ok = (description: string, schema: string) => ({ 200: { description, content: json(schemaRef(schema)) } });

const answerHeaders = headers({
  'whetstone-revision': 'Revision of the deployment that answered: the version in the address.',
  'whetstone-model-version': 'Number of the model version that it serves, within its model.',
  'whetstone-lineage-hash': 'Of the model version, where the configuration says it.',
  'server-timing': 'Milliseconds of queue, preprocessing, compute and postprocessing.',
});
const jsonLength = { 'inference-header-content-length': 'Bytes of JSON before the binary tensors.' };
const inferenceFailures = failed(400, 401, 403, 404, 413, 415, 429, 500, 503, 504);

const queryParameters = Object.entries(fromZod(PredictQuery).properties as Record<string, { description: string }>).map(
  ([name, { description, ...schema }]) => parameter('query', name, description, schema),
);

// ------------------------------------------------------------------------------------------------------------------ paths

interface Operation {
  summary: string;
  responses: object;
  parameters?: object[];
  requestBody?: object;
  security?: [];
}
type Path = Partial<Record<'get' | 'post', Operation>>;

/** By what comes behind the address of a model. */
const modelPaths: Record<string, Path> = {
  '': {
    get: {
      summary: 'Inputs and outputs of a model',
      responses: { ...ok('The model.', 'ModelMetadata'), ...failed(400, 401, 403, 404, 503) },
    },
  },
  '/ready': {
    get: { summary: 'Whether a model answers', responses: { ...ok('It does.', 'Nothing'), ...failed(400, 401, 403, 404, 503) } },
  },
  '/config': {
    get: {
      summary: 'The configuration, as Triton has it',
      responses: { ...ok('The configuration.', 'ModelConfiguration'), ...failed(400, 401, 403, 404, 503) },
    },
  },
  '/stats': {
    get: { summary: 'Counters of a model', responses: { ...ok('The counters.', 'Statistics'), ...failed(400, 401, 403, 404, 503) } },
  },
  '/infer': {
    post: {
      summary: 'Tensors in, tensors out',
      parameters: [parameter('header', 'Inference-Header-Content-Length', jsonLength['inference-header-content-length'], integer())],
      requestBody: { required: true, content: { ...json(schemaRef('InferRequest')), ...bytes('application/octet-stream') } },
      responses: {
        200: {
          description: 'The outputs: JSON, with binary tensors behind it where the request asks for them.',
          headers: { ...answerHeaders, ...headers(jsonLength) },
          content: { ...json(schemaRef('InferResponse')), ...bytes('application/octet-stream') },
        },
        ...inferenceFailures,
      },
    },
  },
  '/predict': {
    post: {
      summary: 'An image in, classes or boxes out',
      parameters: queryParameters,
      requestBody: { required: true, content: bytes('image/jpeg', 'image/png', 'image/webp') },
      responses: {
        200: {
          description: 'What is on the image: classes from a classifier, detections from a detector.',
          headers: answerHeaders,
          content: json({ oneOf: [schemaRef('Classes'), schemaRef('Detections')] }),
        },
        ...inferenceFailures,
        ...failed(422),
      },
    },
  },
};

const plainPaths: Record<string, Path> = {
  '/v2': { get: { summary: 'The server and its extensions', security: [], responses: ok('The server.', 'ServerMetadata') } },
  '/v2/health/live': { get: { summary: 'Whether the host lives', security: [], responses: ok('It does.', 'Nothing') } },
  '/v2/health/ready': {
    get: { summary: 'Whether every model answers', security: [], responses: { ...ok('They do.', 'Nothing'), ...failed(503) } },
  },
  '/v2/models/stats': {
    get: { summary: 'Counters of all models', responses: { ...ok('The counters.', 'Statistics'), ...failed(401, 403, 503) } },
  },
  '/v2/repository/index': {
    post: { summary: 'All models and versions', responses: { ...ok('The models.', 'RepositoryIndex'), ...failed(401, 403, 503) } },
  },
  '/metrics': {
    get: {
      summary: 'Metrics for Prometheus',
      security: [],
      responses: { 200: { description: 'Text format 0.0.4.', content: { 'text/plain': { schema: text() } } } },
    },
  },
  '/openapi.json': {
    get: { summary: 'This document', security: [], responses: { 200: { description: 'OpenAPI 3.1.', content: json({ type: 'object' }) } } },
  },
};

const modelName = parameter('path', 'model', 'Name of the model.');
const modelVersion = parameter('path', 'version', 'Its version. An address without one means the greatest.');

const modelPathsAt = (address: string, parameters: object[]) =>
  Object.entries(modelPaths).map(([behind, path]) => [address + behind, { parameters, ...path }]);

export const hostOpenapi = {
  openapi: '3.1.0',
  info: {
    title: 'Whetstone inference host',
    version: codeVersion,
    description: 'The Open Inference Protocol V2 with its binary tensor extension, and images in, classes or boxes out.',
    license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
  },
  // A host that was started by itself may know no accounts.
  security: [{ bearer: [] }, {}],
  paths: {
    ...plainPaths,
    ...Object.fromEntries(modelPathsAt('/v2/models/{model}', [modelName])),
    ...Object.fromEntries(modelPathsAt('/v2/models/{model}/versions/{version}', [modelName, modelVersion])),
  },
  components: {
    schemas,
    securitySchemes: { bearer: { type: 'http', scheme: 'bearer', description: 'An API key, or an access token of the server.' } },
  },
};
