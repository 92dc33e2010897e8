import { get } from 'node:http';
import { deflateSync, gunzipSync, gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import type { Datatype } from '../src/engine/datatypes.ts';
import { binaryBody, call, inferJson, withHost } from './support/inference.ts';

let url = '';
withHost(
  {
    bodyBytesMax: 100_000,
    hostNames: ['models.example'],
    models: [
      { name: 'types', batchMax: 3, lineageHash: 'c'.repeat(64) },
      { name: 'identity', version: 1 },
      { name: 'identity', version: 3, batchMax: 4 },
      { name: 'wide', model: 'identity', batchMax: 256 },
      { name: 'arithmetic', batchMax: 2 },
      { name: 'lookup' },
    ],
  },
  (host) => {
    url = host.url;
  },
);

const item = (values: number[]) => ({ inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4], data: values }] });
const bytesOf = (array: ArrayBufferView) => new Uint8Array(array.buffer as ArrayBuffer, array.byteOffset, array.byteLength);

describe('what the server and its models say of themselves', () => {
  test.each(['/v2/health/live', '/v2/health/ready', '/v2/models/identity/ready', '/v2/models/identity/versions/1/ready'])(
    '%s answers 200',
    async (path) => {
      expect((await call(url + path)).status).toBe(200);
    },
  );

  test('the server names the extensions that it has', async () => {
    const { json } = await call(`${url}/v2`);
    const extensions = ['binary_tensor_data', 'model_configuration', 'schedule_policy', 'statistics'];
    expect(json).toMatchObject({ name: 'whetstone', extensions });
  });

  test('a model has its versions, and -1 for a symbolic dimension', async () => {
    const { json } = await call(`${url}/v2/models/identity`);
    expect(json).toEqual({
      name: 'identity',
      versions: ['1', '3'],
      platform: 'onnxruntime_onnx',
      inputs: [{ name: 'x', datatype: 'FP32', shape: [-1, 4] }],
      outputs: [{ name: 'y', datatype: 'FP32', shape: [-1, 4] }],
    });
  });

  test('the configuration is the one that perf_analyzer reads: a batch axis is not in its dims', async () => {
    const { json } = await call(`${url}/v2/models/identity/config`);
    expect(json).toMatchObject({
      max_batch_size: 4,
      input: [{ name: 'x', data_type: 'TYPE_FP32', dims: [4] }],
      output: [{ name: 'y', data_type: 'TYPE_FP32', dims: [4] }],
      model_transaction_policy: { decoupled: false },
    });
  });

  test('the repository lists every version', async () => {
    const { json } = await call(`${url}/v2/repository/index`, { method: 'POST', body: '{}' });
    expect(json).toContainEqual({ name: 'identity', version: '3', state: 'READY', reason: '' });
    expect(json).toHaveLength(6);
  });

  test('statistics count requests, runs and their times under the names of the extension', async () => {
    const before = (await call(`${url}/v2/models/arithmetic/stats`)).json.model_stats[0];
    const input = (name: string) => ({ name, datatype: 'INT32', shape: [2, 16], data: Array.from({ length: 32 }, (_, i) => i) });
    await inferJson(url, 'arithmetic', { inputs: [input('INPUT0'), input('INPUT1')] });
    const [stats] = (await call(`${url}/v2/models/arithmetic/stats`)).json.model_stats;
    expect(stats.inference_count - before.inference_count).toBe(2);
    expect(stats.execution_count - before.execution_count).toBe(1);
    expect(stats.inference_stats.success.count - before.inference_stats.success.count).toBe(1);
    expect(stats.inference_stats.compute_infer.ns).toBeGreaterThan(before.inference_stats.compute_infer.ns);
    expect(stats.batch_stats).toContainEqual(
      expect.objectContaining({ batch_size: 2, compute_infer: { count: 1, ns: expect.any(Number) } }),
    );
    expect(Object.keys(stats.inference_stats)).toEqual(
      expect.arrayContaining(['success', 'fail', 'queue', 'compute_input', 'compute_infer', 'compute_output', 'cache_hit', 'cache_miss']),
    );
  });
});

/** Of each type: values as JSON has them, and the same as little-endian bytes. */
const values: Record<Datatype, [json: unknown[], binary: ArrayBufferView]> = {
  BOOL: [[true, false, true], Uint8Array.of(1, 0, 1)],
  UINT8: [[0, 200, 255], Uint8Array.of(0, 200, 255)],
  UINT16: [[0, 1, 65535], Uint16Array.of(0, 1, 65535)],
  UINT32: [[0, 1, 4294967295], Uint32Array.of(0, 1, 4294967295)],
  UINT64: [[0, 1, 9007199254740991], BigUint64Array.of(0n, 1n, 9007199254740991n)],
  INT8: [[-128, 0, 127], Int8Array.of(-128, 0, 127)],
  INT16: [[-32768, 0, 32767], Int16Array.of(-32768, 0, 32767)],
  INT32: [[-2147483648, 0, 2147483647], Int32Array.of(-2147483648, 0, 2147483647)],
  INT64: [[-9007199254740991, 0, 7], BigInt64Array.of(-9007199254740991n, 0n, 7n)],
  FP16: [[-1.5, 0, 0.0999755859375], Uint16Array.of(0xbe00, 0, 0x2e66)],
  FP32: [[-1.5, 0, 0.25], Float32Array.of(-1.5, 0, 0.25)],
  FP64: [[-1.5, 0, 0.1], Float64Array.of(-1.5, 0, 0.1)],
};
const all = Object.keys(values) as Datatype[];

describe('tensors', () => {
  const inputs = all.map((type) => ({ name: `in_${type}`, datatype: type, shape: [3], data: values[type][0] }));

  test('JSON in, JSON out: the values of every type', async () => {
    const { status, json } = await inferJson(url, 'types', { inputs });
    expect(status).toBe(200);
    expect(json.outputs).toEqual(all.map((type) => ({ name: `out_${type}`, datatype: type, shape: [3], data: values[type][0] })));
  });

  test('binary in, binary out: the bytes of every type, in the order of the JSON', async () => {
    const described = all.map((type) => ({
      name: `in_${type}`,
      datatype: type,
      shape: [3],
      parameters: { binary_data_size: values[type][1].byteLength },
    }));
    const sent = all.map((type) => bytesOf(values[type][1]));
    const { body, headers } = binaryBody({ parameters: { binary_data_output: true }, inputs: described }, ...sent);
    const got = await call(`${url}/v2/models/types/infer`, { method: 'POST', body, headers });
    expect(got.status).toBe(200);
    const jsonLength = Number(got.headers['inference-header-content-length']);
    const { outputs } = JSON.parse(got.body.subarray(0, jsonLength).toString());
    expect(outputs[0]).toEqual({ name: 'out_BOOL', datatype: 'BOOL', shape: [3], parameters: { binary_data_size: 3 } });
    expect(got.body.subarray(jsonLength)).toEqual(Buffer.concat(sent));
  });

  test('one input binary and one JSON, one output binary and one JSON', async () => {
    const one = Int32Array.from({ length: 16 }, (_, i) => i);
    const { body, headers } = binaryBody(
      {
        inputs: [
          { name: 'INPUT1', datatype: 'INT32', shape: [1, 16], data: [...one].map(() => 1) },
          { name: 'INPUT0', datatype: 'INT32', shape: [1, 16], parameters: { binary_data_size: 64 } },
        ],
        outputs: [{ name: 'OUTPUT1', parameters: { binary_data: true } }, { name: 'OUTPUT0' }],
      },
      bytesOf(one),
    );
    const got = await call(`${url}/v2/models/arithmetic/infer`, { method: 'POST', body, headers });
    const jsonLength = Number(got.headers['inference-header-content-length']);
    const { outputs } = JSON.parse(got.body.subarray(0, jsonLength).toString());
    expect(outputs.map(({ name }: { name: string }) => name)).toEqual(['OUTPUT1', 'OUTPUT0']);
    expect(outputs[1].data).toEqual([...one].map((value) => value + 1));
    expect(got.body.subarray(jsonLength)).toEqual(Buffer.from(one.map((value) => value - 1).buffer));
  });

  test('nested arrays are row-major', async () => {
    const { json } = await inferJson(url, 'identity', {
      inputs: [
        {
          name: 'x',
          datatype: 'FP32',
          shape: [2, 4],
          data: [
            [1, 2, 3, 4],
            [5, 6, 7, 8],
          ],
        },
      ],
    });
    expect(json.outputs[0]).toMatchObject({ shape: [2, 4], data: [1, 2, 3, 4, 5, 6, 7, 8] });
  });

  test('a subset of the outputs is computed and answered', async () => {
    const input = (name: string) => ({ name, datatype: 'INT32', shape: [1, 16], data: new Array(16).fill(2) });
    const { json } = await inferJson(url, 'arithmetic', { inputs: [input('INPUT0'), input('INPUT1')], outputs: [{ name: 'OUTPUT1' }] });
    expect(json.outputs).toEqual([{ name: 'OUTPUT1', datatype: 'INT32', shape: [1, 16], data: new Array(16).fill(0) }]);
  });

  test('64-bit integers beyond 2⁵³ are exact in the answer', async () => {
    const { body, headers } = binaryBody(
      {
        inputs: all.map((type) => ({
          name: `in_${type}`,
          datatype: type,
          shape: [1],
          ...(type === 'INT64' ? { parameters: { binary_data_size: 8 } } : { data: [values[type][0][1]] }),
        })),
        outputs: [{ name: 'out_INT64' }],
      },
      bytesOf(BigInt64Array.of(-9223372036854775807n)),
    );
    const got = await call(`${url}/v2/models/types/infer`, { method: 'POST', body, headers });
    expect(got.body.toString()).toContain('"data":[-9223372036854775807]');
  });
});

describe('what an answer carries', () => {
  test('the id of the request, and the version that answered', async () => {
    const { json, headers } = await inferJson(url, 'identity', { id: 'a "quoted" id', ...item([1, 2, 3, 4]) });
    expect(json).toMatchObject({ id: 'a "quoted" id', model_name: 'identity', model_version: '3' });
    expect([headers['whetstone-revision'], headers['whetstone-model-version']]).toEqual(['3', undefined]);
  });

  test('an older version where it is asked for', async () => {
    const { json } = await inferJson(url, 'identity/versions/1', item([1, 2, 3, 4]));
    expect(json.model_version).toBe('1');
  });

  test('the lineage hash, and the times of its parts', async () => {
    const inputs = all.map((type) => ({ name: `in_${type}`, datatype: type, shape: [1], data: [values[type][0][1]] }));
    const { headers } = await inferJson(url, 'types', { inputs });
    expect(headers['whetstone-lineage-hash']).toBe('c'.repeat(64));
    expect(headers['server-timing']).toMatch(/^queue;dur=[\d.]+, preprocessing;dur=[\d.]+, compute;dur=[\d.]+, postprocessing;dur=[\d.]+$/);
  });

  test.each([
    ['gzip', gzipSync],
    ['deflate', deflateSync],
  ])('a body in %s is read', async (encoding, pack) => {
    const body = pack(JSON.stringify(item([1, 2, 3, 4])));
    const { json } = await inferJson(url, 'identity', null, { body, headers: { 'content-encoding': encoding } });
    expect(json.outputs[0].data).toEqual([1, 2, 3, 4]);
  });

  test('a large answer is compressed where the client asks for it', async () => {
    const data = Array.from({ length: 1000 }, (_, i) => i);
    const asked = { inputs: [{ name: 'x', datatype: 'FP32', shape: [250, 4], data }] };
    const { headers, body } = await inferJson(url, 'wide', asked, { headers: { 'accept-encoding': 'gzip' } });
    expect(headers['content-encoding']).toBe('gzip');
    expect(JSON.parse(gunzipSync(body).toString()).outputs[0].data).toEqual(data);
    for (const [accepted, encoding] of [
      ['gzip;q=0', undefined],
      ['gzip;q=0, deflate', 'deflate'],
      ['*;q=0.5, gzip;q=0', 'deflate'],
      ['br', undefined],
    ] as const) {
      const got = await inferJson(url, 'wide', asked, { headers: { 'accept-encoding': accepted } });
      expect([accepted, got.headers['content-encoding']]).toEqual([accepted, encoding]);
    }
  });

  test('HEAD answers like GET, without the body', async () => {
    for (const path of ['/v2', '/v2/health/ready', '/v2/models/identity/ready', '/metrics']) {
      const { status, body } = await call(url + path, { method: 'HEAD' });
      expect([path, status, body.length]).toEqual([path, 200, 0]);
    }
    expect((await call(`${url}/v2/models/identity/infer`, { method: 'HEAD' })).status).toBe(405);
  });

  test('a timeout of 0 is the deadline of the model', async () => {
    expect((await inferJson(url, 'identity', { ...item([1, 2, 3, 4]), parameters: { timeout: 0 } })).status).toBe(200);
  });
});

const x = (change: object) => ({ inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4], data: [1, 2, 3, 4], ...change }] });

/** Each wrong request, its status, and what the message says. */
const wrong: [what: string, path: string, json: unknown, status: number, says: string][] = [
  [
    'a model that is not there',
    'nothing',
    x({}),
    404,
    'no deployment or model nothing: POST /v2/repository/index lists those that there are.',
  ],
  ['a version that is not there', 'identity/versions/2', x({}), 404, 'no version 2; it has 1, 3'],
  ['an input that the model has not', 'identity', x({ name: 'z' }), 400, 'no input z; it has x'],
  ['a missing input', 'identity', { inputs: [] }, 400, 'Missing input: x'],
  ['an input twice', 'identity', { inputs: [...x({}).inputs, ...x({}).inputs] }, 400, 'twice'],
  ['another type', 'identity', x({ datatype: 'FP64' }), 400, 'x is FP32, not FP64'],
  ['another rank', 'identity', x({ shape: [4] }), 400, '[-1,4]; [4] does not fit'],
  ['another dimension', 'identity', x({ shape: [1, 5] }), 400, '[1,5] does not fit'],
  ['a dimension of 0', 'identity', x({ shape: [0, 4], data: [] }), 400, 'a dimension is 1 or more'],
  ['too few values', 'identity', x({ data: [1, 2, 3] }), 400, 'needs 4 values, not 3'],
  ['no values', 'identity', x({ data: undefined }), 400, 'needs `data`'],
  ['a number as a text', 'identity', x({ data: [1, 2, 3, '4'] }), 400, 'Input x: data[3] is "4"; FP32 takes numbers up to 3.4'],
  ['a boolean as a number', 'identity', x({ data: [[1, true, 3, 4]] }), 400, 'Input x: data[0][1] is true; FP32 takes numbers'],
  ['null as a number', 'identity', x({ data: [1, 2, null, 4] }), 400, 'Input x: data[2] is null; FP32'],
  ['an object as a number', 'identity', x({ data: [1, 2, {}, 4] }), 400, 'Input x: data[2] is a list or an object; FP32'],
  ['a number beyond its type', 'identity', x({ data: [1, 2, 3, 1e39] }), 400, 'data[3] is 1e+39; FP32 takes numbers up to 3.4'],
  [
    'a fraction as an integer',
    'lookup',
    { inputs: [{ name: 'index', datatype: 'INT64', shape: [1], data: [0.5] }] },
    400,
    'data[0] is 0.5; INT64 takes whole numbers from -9007199254740991 to 9007199254740991; what is beyond needs binary data',
  ],
  [
    'lists of unequal lengths',
    'identity',
    x({
      shape: [2, 4],
      data: [
        [1, 2, 3],
        [4, 5, 6, 7, 8],
      ],
    }),
    400,
    'Input x: data[0] has 3 items, but the shape [2,4] needs 4 there',
  ],
  [
    'lists beside values',
    'identity',
    x({ shape: [2, 4], data: [[1, 2, 3, 4], 5, 6, 7, 8] }),
    400,
    'data has 5 items, but the shape [2,4] needs 2',
  ],
  [
    'values before lists',
    'identity',
    x({ shape: [2, 4], data: [1, [2, 3, 4, 5]] }),
    400,
    'data[0] is no list, but the shape [2,4] needs 4',
  ],
  [
    'lists of another shape',
    'identity',
    x({
      shape: [2, 4],
      data: [
        [1, 2],
        [3, 4],
        [5, 6],
        [7, 8],
      ],
    }),
    400,
    'data has 4 items, but',
  ],
  ['lists nested deeper than the shape', 'identity', x({ data: [[[1], 2, 3, 4]] }), 400, 'data[0][0] is a list or an object'],
  ['an output that the model has not', 'identity', { ...x({}), outputs: [{ name: 'z' }] }, 400, 'no output z; it has y'],
  ['an output twice', 'identity', { ...x({}), outputs: [{ name: 'y' }, { name: 'y' }] }, 400, 'twice'],
  ['more items than the model takes', 'identity/versions/1', x({ shape: [2, 4] }), 400, 'x has 2 items; the model takes 1 at most'],
  ['a priority beyond 10', 'identity', { ...x({}), parameters: { priority: 11 } }, 400, 'parameters.priority'],
  ['shared memory', 'identity', x({ parameters: { shared_memory_region: 'r' } }), 400, 'shared memory is not served'],
  ['binary data without any', 'identity', x({ parameters: { binary_data_size: 16 } }), 400, 'ends inside of input x'],
  ['another binary size', 'identity', x({ parameters: { binary_data_size: 15 } }), 400, 'needs 16 bytes'],
  ['JSON of another form', 'identity', { inputs: 7 }, 400, 'wrong at inputs'],
  [
    'an input on which the model fails',
    'lookup',
    { inputs: [{ name: 'index', datatype: 'INT64', shape: [1], data: [9] }] },
    500,
    'failed on this input',
  ],
  [
    'two batch sizes',
    'arithmetic',
    { inputs: [1, 2].map((n, i) => ({ name: `INPUT${i}`, datatype: 'INT32', shape: [n, 16], data: new Array(16 * n).fill(0) })) },
    400,
    'different batch sizes',
  ],
];

describe('what is refused', () => {
  test.each(wrong)('%s', async (_, path, json, status, says) => {
    const got = await inferJson(url, path, json);
    expect(got.status).toBe(status);
    expect(got.json).toEqual({ error: expect.stringContaining(says) });
    expect(got.json.error).not.toMatch(/\/(tmp|usr|home|root|work)\//);
  });

  test('a body that is not JSON', async () => {
    const got = await inferJson(url, 'identity', null, { body: 'hello' });
    expect([got.status, got.json.error]).toEqual([400, expect.stringContaining('not JSON')]);
  });

  test.each(['NaN', 'Infinity', '-Infinity'])('%s, which is not JSON, with its place and what to do', async (number) => {
    const body = JSON.stringify(x({ data: 'here' })).replace('"here"', `[1, 2, ${number}, 4]`);
    const got = await inferJson(url, 'identity', null, { body });
    const says = `${number} at character ${body.indexOf(number)}. JSON has no such number: send the tensor as binary data.`;
    expect([got.status, got.json.error]).toEqual([400, expect.stringContaining(says)]);
  });

  test('arrays in arrays without end', async () => {
    const body = JSON.stringify(x({ data: 'deep' })).replace('"deep"', '['.repeat(40_000) + ']'.repeat(40_000));
    expect((await inferJson(url, 'identity', null, { body })).status).toBe(400);
  });

  test('a header length beyond the body, or none', async () => {
    for (const length of ['9999', '-1', 'abc']) {
      const got = await inferJson(url, 'identity', x({}), { headers: { 'inference-header-content-length': length } });
      expect(got.status).toBe(400);
    }
  });

  test('a body beyond the limit: with a length, chunked, and one that grows when it is unpacked', async () => {
    const large = 'x'.repeat(100_001);
    const declared = await inferJson(url, 'identity', null, { body: large });
    const chunked = await fetch(`${url}/v2/models/identity/infer`, {
      method: 'POST',
      body: new Blob([large]).stream(),
      duplex: 'half',
    } as RequestInit);
    const packed = await inferJson(url, 'identity', null, { body: gzipSync(large), headers: { 'content-encoding': 'gzip' } });
    expect([declared.status, chunked.status, packed.status]).toEqual([413, 413, 413]);
  });

  test('an unknown encoding, a broken one, an unknown address, a wrong method', async () => {
    const encoded = (encoding: string) => inferJson(url, 'identity', x({}), { headers: { 'content-encoding': encoding } });
    expect((await encoded('br')).status).toBe(415);
    expect((await encoded('gzip')).status).toBe(400);
    expect((await call(`${url}/v2/nothing`)).status).toBe(404);
    expect((await call(`${url}/v2/models/identity/infer`)).status).toBe(405);
    expect((await call(`${url}/v2/models/%E0%A4/ready`)).status).toBe(400);
  });

  test.each(['toString', 'hasOwnProperty', 'constructor', '__proto__', '__defineGetter__'])(
    'nothing is at …/%s, also not for a model or a tensor',
    async (name) => {
      const wrong = [
        `models/identity/${name}`,
        `models/identity/versions/1/${name}`,
        `models/${name}`,
        `models/identity/versions/${name}/ready`,
        name,
      ];
      for (const path of wrong) expect([path, (await call(`${url}/v2/${path}`)).status]).toEqual([path, 404]);
      const tensor = { name, datatype: name, shape: [1, 4], data: [1, 2, 3, 4] };
      expect((await inferJson(url, 'identity', { inputs: [tensor] })).status).toBe(400);
      expect((await inferJson(url, 'identity', { ...item([1, 2, 3, 4]), outputs: [{ name }] })).status).toBe(400);
    },
  );
  test.each([
    ['//', 404],
    ['//v2', 404],
    ['http://[', 400],
    ['http://x/v2/health/live', 200],
  ])('the address %s is answered with %i', async (path, status) => {
    const { hostname, port } = new URL(url);
    const got = await new Promise((resolve, reject) => {
      get({ hostname, port, path }, (res) => resolve(res.resume().statusCode)).on('error', reject);
    });
    expect(got).toBe(status);
  });

  test.each([
    [{ host: 'evil.example:8000' }, 403],
    [{ host: 'evil.example', origin: 'http://evil.example' }, 403],
    [{ origin: 'http://evil.example' }, 403],
    [{ origin: 'null' }, 403],
    [{ host: 'localhost:8000' }, 200],
    [{ host: 'inference' }, 200],
    [{ host: '192.168.0.7:8000' }, 200],
    [{ host: '[::1]:8000' }, 200],
    [{ host: 'models.example', origin: 'https://models.example' }, 200],
  ])('a host without accounts answers a request with %o with %i', async (headers, status) => {
    for (const path of ['/v2/models/stats', '/metrics']) expect((await call(url + path, { headers })).status).toBe(status);
    expect((await inferJson(url, 'identity', item([1, 2, 3, 4]), { headers })).status).toBe(status);
  });

  test('the host goes on after all of it', async () => {
    expect((await inferJson(url, 'identity', item([1, 2, 3, 4]))).status).toBe(200);
    const { body } = await call(`${url}/metrics`);
    expect(body.toString()).toContain('whetstone_inference_body_bytes 0');
  });
});
