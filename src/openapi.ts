/** What the server answers beside GraphQL as an OpenAPI 3.1 document: `GET /openapi.json`. */
import { type ErrorCode, errorCodes } from './errors.ts';
import { AuthSnapshot } from './inference/auth.ts';
import { bytes, fromZod, headers, integer, type JsonSchema, json, listOf, object, parameter, schemaRef, text } from './openapiParts.ts';
import { notReadyCodes } from './ready.ts';
import { codeVersion } from './version.ts';

const stored = { uploadId: text(), sha256: text('In hexadecimal.'), sizeBytes: integer() };
const upload = object({
  ...stored,
  fileName: text(),
  offset: integer('Bytes that are here.'),
  state: {
    type: 'string',
    enum: ['OPEN', 'COMPLETE', 'CONSUMED', 'EXPIRED'],
    description: 'COMPLETE: a mutation can use it. CONSUMED: one has. EXPIRED: nobody did in time.',
  },
  sha256: { type: ['string', 'null'], description: 'Null until all bytes are here.' },
  expiresAt: { type: 'string', format: 'date-time' },
});

const schemas: Record<string, JsonSchema> = {
  GraphqlErrors: {
    type: 'object',
    required: ['errors'],
    description: 'As `Errors`, with `data`, `locations` and `path` where there are some.',
  },
  Errors: object({
    errors: listOf(
      object({
        message: text('What is wrong and what to do.'),
        extensions: object(
          {
            code: { type: 'string', enum: Object.keys(errorCodes) },
            retryable: { type: 'boolean', description: 'Whether the same request may succeed later.' },
            requestId: text('As in the header X-Request-Id and in the log.'),
            retryAfterMs: integer(),
          },
          ['retryAfterMs'],
        ),
      }),
    ),
  }),
  Upload: upload,
  Uploads: object({ uploads: listOf(schemaRef('Upload')) }),
  Stored: object(stored),
  AuthSnapshot: fromZod(AuthSnapshot),
  Status: object(
    {
      status: { type: 'string', enum: ['ok', 'ready', 'not ready'] },
      inference: { type: 'string', description: 'Of /ready: the state of the inference host, as `inferenceHealth` has it.' },
      reasons: listOf(
        object({ code: { type: 'string', enum: notReadyCodes }, message: text('What to do.') }),
        'Of /ready, where it is 503: why the server takes no work.',
      ),
    },
    ['inference', 'reasons'],
  ),
};

/** The answers of these codes by their status. */
function failed(...codes: ErrorCode[]) {
  const byStatus = Object.groupBy(codes, (code) => errorCodes[code].status);
  return Object.fromEntries(
    Object.entries(byStatus).map(([status, same = []]) => [
      status,
      {
        description: same.map((code) => `${code}: ${errorCodes[code].description}`).join(' '),
        headers: headers(status === '401' ? { 'WWW-Authenticate': '`Bearer`.' } : status === '429' || status === '503' ? retryAfter : {}),
        content: json(schemaRef('Errors')),
      },
    ]),
  );
}
const retryAfter = { 'Retry-After': 'Seconds; where it is known.' };

const answer = (description: string, schema: string) => ({ description, content: json(schemaRef(schema)) });
const always = failed('UNAUTHENTICATED', 'FORBIDDEN', 'INVALID', 'NOT_FOUND', 'UNAVAILABLE', 'INTERNAL');
const tusHeaders = { 'Tus-Resumable': '1.0.0' };
const length = { 'Upload-Length': 'Bytes of the whole file.' };
const offset = { 'Upload-Offset': 'Bytes that are here.' };
const expires = { 'Upload-Expires': 'When the upload expires unless more bytes arrive.' };
const asHeaders = (described: Record<string, string>) =>
  Object.entries(described).map(([name, description]) => parameter('header', name, description));
const body = { required: true, content: bytes('application/offset+octet-stream') };

const link = [
  parameter('query', 'expires', 'From the link.', integer()),
  parameter('query', 'session', 'From the link that a session asked for.'),
  parameter('query', 'key', 'From the link that an API key asked for.'),
  parameter('query', 'signature', 'From the link, which the GraphQL API gives.'),
];
/** What is made while it is read has no ranges. */
const made = (summary: string, types: string[], statuses: object = {}) => {
  const content = bytes(...types);
  const failures = failed('INVALID', 'FORBIDDEN', 'NOT_FOUND', 'UNAVAILABLE');
  return {
    get: { summary, security: [], responses: { 200: { description: 'The bytes.', content }, ...statuses, ...failures } },
    head: {
      summary: `${summary}: only the headers`,
      security: [],
      responses: { 200: { description: 'The headers.', content }, ...statuses, ...failures },
    },
  };
};
const read = (summary: string, type: string) =>
  made(summary, [type], {
    206: { description: 'The bytes that the header Range asks for.', content: bytes(type) },
    304: { description: 'The client has it: If-None-Match.' },
    416: { description: 'The file has no such bytes.' },
  });

const reportFormat = parameter('path', 'format', 'From the link.', { type: 'string', enum: ['JSON', 'CSV', 'MARKDOWN', 'HTML'] });
const reportTypes = ['text/html', 'application/json', 'text/csv', 'text/markdown'];

/** An answer of GraphQL has the status of an error where there is nothing else in it. */
const graphqlFailures = (Object.keys(errorCodes) as ErrorCode[]).filter((code) => code !== 'METHOD_NOT_ALLOWED');
const graphqlTypes = ['application/json', 'application/graphql-response+json'];
const inGraphqlTypes = (schema: JsonSchema) => Object.fromEntries(graphqlTypes.map((type) => [type, { schema }]));
const graphqlAnswer = {
  200: {
    description: 'GraphQL over HTTP: data, or with `Accept: application/json` also a fault of the document. Of a subscription, events.',
    content: { ...inGraphqlTypes({ type: 'object' }), 'text/event-stream': { schema: text() } },
  },
  ...Object.fromEntries(
    Object.entries(failed(...graphqlFailures)).map(([status, answered]) => [
      status,
      { ...answered, content: inGraphqlTypes(schemaRef('GraphqlErrors')) },
    ]),
  ),
};
/** With a token or without: each field says in the schema what it needs. */
const withOrWithoutToken = [{ accessToken: [] }, {}];

/** A page of another origin is 403, and so is a token that is not valid 401, also where none is needed. */
const readByAnybody = (summary: string, answers: Record<number, object>) => {
  const responses = { ...answers, ...failed('UNAUTHENTICATED', 'FORBIDDEN') };
  return {
    get: { summary, security: [], responses },
    head: { summary: `${summary}: only the headers`, security: [], responses },
  };
};

export const serverOpenapi = {
  openapi: '3.1.0',
  info: {
    title: 'Whetstone server',
    version: codeVersion,
    description:
      'What is beside GraphQL: uploads, downloads, health, the accounts for replicas. Models are served by the inference host, which has a document of its own.',
    license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
  },
  security: [{ accessToken: [] }],
  paths: {
    '/graphql': {
      post: {
        summary: 'The GraphQL API, which describes itself',
        security: withOrWithoutToken,
        requestBody: {
          required: true,
          content: {
            ...json(
              object(
                {
                  query: text('GraphQL document.'),
                  variables: { type: ['object', 'null'] },
                  operationName: { type: ['string', 'null'], description: 'Of a document with several operations.' },
                  extensions: { type: ['object', 'null'], description: 'Not used.' },
                },
                ['variables', 'operationName', 'extensions'],
              ),
            ),
            'application/graphql': { schema: text('GraphQL document.') },
          },
        },
        responses: graphqlAnswer,
      },
      get: {
        summary: 'A query in the address; in a browser GraphiQL',
        security: withOrWithoutToken,
        parameters: [
          { ...parameter('query', 'query', 'GraphQL document; not a mutation.'), required: true },
          parameter('query', 'variables', 'JSON.'),
          parameter('query', 'operationName', 'Of a document with several operations.'),
          parameter('query', 'extensions', 'JSON; not used.'),
        ],
        responses: {
          ...graphqlAnswer,
          200: { ...graphqlAnswer[200], content: { ...graphqlAnswer[200].content, 'text/html': { schema: text('GraphiQL.') } } },
          405: {
            description: 'A mutation: send it by POST.',
            headers: headers({ Allow: 'POST.' }),
            content: inGraphqlTypes(schemaRef('GraphqlErrors')),
          },
        },
      },
    },
    '/uploads': {
      get: { summary: 'Your uploads that can be resumed or used', responses: { 200: answer('The uploads.', 'Uploads'), ...always } },
      post: {
        summary: 'A file in one request; with the header Tus-Resumable the creation of a resumable upload (tus 1.0)',
        parameters: [
          parameter('query', 'filename', 'Name of the file, where it comes in this request.'),
          ...asHeaders({ ...tusHeaders, ...length, 'Upload-Metadata': 'tus: `filename` and its name in base64.' }),
        ],
        requestBody: { content: bytes('application/octet-stream', 'application/offset+octet-stream') },
        responses: {
          201: {
            description: 'It is stored; or it is open, and the header Location says where its bytes go.',
            headers: headers({ Location: 'Address of the upload.', ...expires }),
            content: json(schemaRef('Stored')),
          },
          ...always,
          ...failed('TOO_LARGE', 'DISK_FULL', 'MEDIA_TYPE'),
        },
      },
      options: { summary: 'What of tus 1.0 is here', responses: { 204: { description: 'In the headers.' }, ...always } },
    },
    '/uploads/{id}': {
      parameters: [parameter('path', 'id', 'Of an upload of yours.')],
      get: { summary: 'An upload, with its hash once all bytes are here', responses: { 200: answer('The upload.', 'Upload'), ...always } },
      head: {
        summary: 'tus: how many bytes are here',
        parameters: asHeaders(tusHeaders),
        responses: { 200: { description: 'In the headers.', headers: headers({ ...offset, ...length, ...expires }) }, ...always },
      },
      patch: {
        summary: 'tus: append bytes',
        parameters: asHeaders({ ...tusHeaders, ...offset }),
        requestBody: body,
        responses: {
          204: { description: 'They are here.', headers: headers({ ...offset, ...expires }) },
          ...always,
          ...failed('CONFLICT', 'TOO_LARGE', 'DISK_FULL'),
        },
      },
      delete: {
        summary: 'tus: give up',
        parameters: asHeaders(tusHeaders),
        responses: { 204: { description: 'It is gone.' }, ...always, ...failed('IN_USE') },
      },
    },
    '/files/{artifact}': {
      parameters: [parameter('path', 'artifact', 'From the link.'), ...link],
      ...read('A file', 'application/octet-stream'),
    },
    '/files/{artifact}/{range}': {
      parameters: [parameter('path', 'artifact', 'From the link.'), parameter('path', 'range', 'From the link.'), ...link],
      ...read('A thumbnail', 'image/webp'),
    },
    '/files/curves/{job}': {
      parameters: [parameter('path', 'job', 'From the link.'), ...link],
      ...made('The curves of a job as an event file of TensorBoard', ['application/octet-stream']),
    },
    '/files/datasets/{version}/{form}': {
      parameters: [
        parameter('path', 'version', 'From the link.'),
        parameter('path', 'form', 'From the link.', { type: 'string', enum: ['YOLO', 'COCO'] }),
        ...link,
      ],
      ...made('A version of a detection dataset as a zip', ['application/zip']),
    },
    '/files/packages/{version}/{form}': {
      parameters: [
        parameter('path', 'version', 'From the link.'),
        parameter('path', 'form', 'From the link.', { type: 'string', enum: ['BUNDLE', 'TRITON', 'KSERVE'] }),
        ...link,
      ],
      ...made('A model version as a zip for use elsewhere', ['application/zip']),
    },
    '/files/reports/{report}/{format}': {
      parameters: [parameter('path', 'report', 'From the link.'), reportFormat, ...link],
      ...made('The report of a benchmark', reportTypes),
    },
    '/files/reports/jobs/{jobs}/{format}': {
      parameters: [parameter('path', 'jobs', 'From the link.'), reportFormat, ...link],
      ...made('The report of a training or an evaluation, or of trainings beside each other', reportTypes),
    },
    '/inference/accounts': {
      get: {
        summary: 'Accounts that may infer, for an inference host by itself that polls them',
        security: [{ replicaToken: [] }],
        parameters: [parameter('header', 'If-None-Match', 'The ETag of what it has.')],
        responses: {
          200: { ...answer('The accounts.', 'AuthSnapshot'), headers: headers({ ETag: 'The same until they change.' }) },
          304: { description: 'They have not changed.' },
          ...failed('UNAUTHENTICATED', 'INVALID', 'NOT_FOUND', 'FORBIDDEN'),
        },
      },
    },
    '/health': readByAnybody('Whether the server lives', { 200: answer('It does.', 'Status') }),
    '/ready': readByAnybody('Whether the server takes work', {
      200: answer('It does.', 'Status'),
      503: answer('It does not: `reasons` says why.', 'Status'),
    }),
    '/metrics': readByAnybody('Metrics in the text format of Prometheus', {
      200: { description: 'Jobs, slots, the process.', content: { 'text/plain': { schema: text() } } },
    }),
    '/openapi.json': readByAnybody('This document', { 200: { description: 'OpenAPI 3.1.', content: json({ type: 'object' }) } }),
  },
  components: {
    schemas,
    securitySchemes: {
      accessToken: {
        type: 'http',
        scheme: 'bearer',
        bearerFormat: 'JWT',
        description: 'From the mutation `login` or `refresh`; or an API key.',
      },
      replicaToken: { type: 'http', scheme: 'bearer', description: 'WHETSTONE_REPLICA_TOKEN of the server.' },
    },
  },
};
