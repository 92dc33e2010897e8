/** Packages of a model version: unpacked, and used by the programs that they are for. */
import { execFile } from 'node:child_process';
import { copyFileSync, globSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { deployment, deploymentRevision } from '../src/deployments/tables.ts';
import { parseHostConfig } from '../src/inference/config.ts';
import { type RunningHost, startHost } from '../src/inference/host.ts';
import { createLog } from '../src/log.ts';
import { model, modelVersion } from '../src/models/tables.ts';
import { opaqueId } from '../src/naming.ts';
import { filesOf, preparePackage } from '../src/packages/contents.ts';
import { resourceName } from '../src/packages/kserve.ts';
import type { PackageForm, PackageSource } from '../src/packages/source.ts';
import { tritonTexts } from '../src/packages/triton.ts';
import { blobPath, type StorageServices } from '../src/storage/blobs.ts';
import { writeZip } from '../src/storage/zip.ts';
import { inGrey, presetPreprocess } from '../src/vision/spec.ts';
import { photo } from './support/images.ts';
import { call, python, withModelFiles } from './support/inference.ts';
import { storeBenchmark } from './support/reports.ts';
import { withFolder, withServer } from './support/server.ts';
import { sha256, withStorage } from './support/storage.ts';
import { key, logIn, withTui } from './support/tui.ts';

const run = promisify(execFile);

/** Models of `inference_models.py`: how they are served, and what the import finds in their files. */
const labels = ['red "1"', "it's green", 'größe, 蓝'];
const letterbox = presetPreprocess(64, 'DETECTION');
const port = (name: string, shape: (number | string)[], elementType = 'FLOAT') => ({ name, elementType, shape });
const models = {
  brightness: {
    task: 'CLASSIFICATION',
    preprocess: presetPreprocess(32),
    labels,
    inputs: [port('image', ['batch', 3, 32, 32])],
    outputs: [port('logits', ['batch', 3])],
  },
  grey: {
    task: 'CLASSIFICATION',
    preprocess: inGrey(presetPreprocess(32)),
    labels: ['white', 'black'],
    inputs: [port('image', ['batch', 1, 32, 32])],
    outputs: [port('logits', ['batch', 2])],
  },
  rectangle: {
    task: 'DETECTION',
    preprocess: letterbox,
    labels: ['red', 'green'],
    inputs: [port('image', ['batch', 3, 64, 64])],
    outputs: [port('boxes', ['batch', 1, 4]), port('scores', ['batch', 1, 2])],
  },
  'fixture-00': {
    task: 'DETECTION',
    preprocess: letterbox,
    labels: undefined,
    inputs: [port('image', [1, 3, 64, 64])],
    outputs: [port('y', [1, 7, 84])],
  },
} as const;
type Name = keyof typeof models;
const settings: Partial<Record<Name, object>> = { rectangle: { outputLayout: 'BOXES_SCORES', scoreThreshold: 0.1 } };

let folder = '';
let host: RunningHost;
beforeAll(async () => {
  const served = Object.entries(models).map(([name, { inputs: _, outputs: _outputs, ...config }]) => ({
    name,
    deadlineMs: 30_000,
    ...config,
    ...settings[name as Name],
  }));
  const made = await withModelFiles({ models: served });
  folder = made.folder;
  host = await startHost(parseHostConfig(made.settings, folder, 8), createLog({ logLevel: 'silent' }));
});
afterAll(async () => {
  await host?.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** Stores a version of one of the models above, as an import would, and gives its id. */
function store({ config, db }: StorageServices, name: Name, change: Partial<typeof modelVersion.$inferInsert> = {}): string {
  const { task, preprocess, labels, inputs, outputs } = models[name];
  const file = readFileSync(join(folder, `${name}.onnx`));
  const hash = sha256(file);
  mkdirSync(dirname(blobPath(config.dataDir, hash)), { recursive: true });
  writeFileSync(blobPath(config.dataDir, hash), file);
  db.insert(model).values({ id: name, name, task, createdAt: 0 }).onConflictDoNothing().run();
  const about = { operators: {}, opsets: {}, irVersion: 9, producer: '', parameters: 0, elementTypes: {}, labels: null, preprocess: null };
  const rest = { metadata: {}, metadataTruncated: false, weightsHash: null, exporter: null };
  const version = {
    id: 'version-1',
    modelId: name,
    number: 1,
    state: 'READY',
    format: 'ONNX',
    precision: 'FP32',
    origin: 'UPLOADED',
    sha256: hash,
    sizeBytes: file.length,
    lineageHash: 'c'.repeat(64),
    signatureJson: { ...about, ...rest, inputs, outputs },
    preprocessJson: preprocess,
    labelsJson: labels ? [...labels] : null,
    createdAt: 0,
    ...change,
  } as const;
  db.insert(modelVersion).values(version).run();
  return version.id;
}

/** As if the version served with these settings. */
function serve({ db }: StorageServices, modelVersionId: string, settingsJson: object, at = 1): void {
  db.insert(deployment)
    .values({ id: `d${at}`, name: `d${at}`, createdAt: 0 })
    .run();
  const revision = { deploymentId: `d${at}`, number: 1, modelVersionId, settingsJson: { ...settingsJson }, state: 'RETIRED' } as const;
  db.insert(deploymentRevision)
    .values({ ...revision, createdAt: 0, activatedAt: at })
    .run();
}

async function zipOf(services: StorageServices, id: string, form: PackageForm): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of writeZip(await filesOf(services, preparePackage(services, id, form)))) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** Unpacks a zip with another program into a new folder, whose name has a space. */
async function unpacked<T>(zip: Buffer, use: (folder: string, names: string[]) => Promise<T>): Promise<T> {
  return withFolder(async (outer) => {
    const into = join(outer, 'my package');
    writeFileSync(join(outer, 'a.zip'), zip);
    await run(python, ['-m', 'zipfile', '-e', join(outer, 'a.zip'), into]);
    const names = readdirSync(into, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(into.length + 1));
    return use(into, names.sort());
  });
}

/** What `predict.py` prints for these images: it runs from another folder, and of Python sees its own packages only. */
async function predicted(bundle: string, images: Buffer[], ...args: string[]): Promise<unknown[]> {
  const files = images.map((image, n) => {
    writeFileSync(join(bundle, `image ${n}`), image);
    return join(bundle, `image ${n}`);
  });
  const { stdout } = await run(python, ['-I', join(bundle, 'predict.py'), ...files, ...args], { cwd: '/' });
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
}

/** The answer of the product, without the name of the model. */
async function answered(name: Name, body: Buffer, query = ''): Promise<Record<string, never>> {
  const { status, json } = await call(`${host.url}/v2/models/${name}/predict${query}`, { method: 'POST', body });
  expect(status).toBe(200);
  const { model_name, model_version, ...answer } = json;
  return answer;
}

/** The same up to what two libraries may differ by. */
const about = (value: unknown): unknown => {
  if (typeof value === 'number') return expect.closeTo(value, 4);
  if (Array.isArray(value)) return value.map(about);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([key, field]) => [key, about(field)]));
};

const pictures = async (): Promise<Buffer[]> => [
  await photo(200, 120).png().toBuffer(),
  await photo(37, 90).rotate(90).withMetadata({ orientation: 6 }).png().toBuffer(),
  await sharp({ create: { width: 128, height: 96, channels: 3, background: '#000' } })
    .composite([{ input: { create: { width: 64, height: 32, channels: 3, background: '#ff00ff' } }, left: 32, top: 16 }])
    .webp({ lossless: true })
    .toBuffer(),
  // Grey of 16 bits.
  await sharp(
    Uint16Array.from({ length: 40 * 50 }, (_, i) => 60_000 - 20 * i),
    { raw: { width: 50, height: 40, channels: 1 } },
  )
    .toColourspace('grey16')
    .png()
    .toBuffer(),
];

test.each<[Name, string[]]>([
  ['brightness', ['--top', '2']],
  ['grey', []],
  ['rectangle', []],
])('predict.py of a bundle gives the answers of predict: %s', (name, args) =>
  withStorage(async (storage) => {
    const id = store(storage, name);
    if (settings[name]) serve(storage, id, settings[name]);
    const images = await pictures();
    await withFolder(async (bundle) => {
      for (const file of await filesOf(storage, preparePackage(storage, id, 'BUNDLE')))
        await writeFile(join(bundle, file.name), file.content());
      const query = args.length > 0 ? `?${args.join('=').slice(2)}` : '';
      const found = await predicted(bundle, images, ...args);
      for (const [n, image] of images.entries()) expect(found[n]).toEqual(about(await answered(name, image, query)));
    });
  }),
);

test('a bundle has the newest report, the lineage, a note on licences, and checksums that hold; made twice it is the same bytes', () =>
  withStorage(async (storage) => {
    store(storage, 'brightness');
    const parentId = 'version-1';
    const child = { id: 'version-2', number: 2, parentId, origin: 'DESCRIBED' } as const;
    const id = store(storage, 'brightness', child);
    await storeBenchmark(storage.db, [{ latencyMs: 2 }], [2]);
    const zip = await zipOf(storage, id, 'BUNDLE');
    expect((await zipOf(storage, id, 'BUNDLE')).equals(zip)).toBe(true);
    await unpacked(zip, async (bundle, names) => {
      expect(names).toEqual([
        ...['NOTICE.txt', 'README.md', 'SHA256SUMS', 'labels.txt', 'lineage.json', 'model.onnx', 'predict.json', 'predict.py'],
        ...['preprocess.json', 'report.html', 'requirements.txt'],
      ]);
      const { stdout } = await run('sha256sum', ['-c', 'SHA256SUMS'], { cwd: bundle });
      expect(stdout.match(/: OK$/gm)).toHaveLength(names.length - 1);
      const text = (name: string) => readFileSync(join(bundle, name), 'utf8');
      expect(text('report.html')).toContain('<h1>');
      expect(text('labels.txt')).toBe(`${labels.join('\n')}\n`);
      expect(JSON.parse(text('preprocess.json'))).toEqual(models.brightness.preprocess);
      expect(JSON.parse(text('lineage.json'))).toMatchObject({ version: 2, parents: [{ version: 1, origin: 'UPLOADED' }] });
      expect(text('NOTICE.txt')).toContain('brightness version 1 was uploaded. Ask whoever uploaded it');
    });
  }));

test('a package has the settings with which the version served last, or those of every model', () =>
  withStorage(async (storage) => {
    const id = store(storage, 'rectangle');
    serve(storage, id, { outputLayout: 'BOXES_SCORES', boxesMax: 7 }, 2);
    serve(storage, id, { outputLayout: 'BOXES_SCORES', boxesMax: 5 }, 1);
    const { texts } = preparePackage(storage, id, 'BUNDLE');
    expect(JSON.parse(texts['predict.json'] as string)).toMatchObject({ boxesMax: 7, outputLayout: 'BOXES_SCORES', nmsIou: 0.7 });
    const other = preparePackage(storage, store(storage, 'fixture-00', { id: 'version-2' }), 'BUNDLE').texts;
    expect(JSON.parse(other['predict.json'] as string)).toMatchObject({ boxesMax: 100, outputLayout: 'CENTRES_FIRST' });
  }));

test.each<[string, Name, Parameters<typeof store>[2], PackageForm, string]>([
  ['a checkpoint', 'brightness', { format: 'CHECKPOINT' }, 'TRITON', 'It is a CHECKPOINT: convert it to ONNX first.'],
  ['a version that is being imported', 'brightness', { state: 'IMPORTING' }, 'BUNDLE', 'It is IMPORTING, not READY.'],
  ['a detector whose outputs can be read in several ways', 'rectangle', {}, 'BUNDLE', 'say `outputLayout`'],
])('%s is refused with the reason', (_, name, change, form, says) =>
  withStorage(async (storage) => {
    const id = store(storage, name, change);
    expect(() => preparePackage(storage, id, form)).toThrow(says);
  }),
);

test('a viewer downloads a package by its link, and in the terminal UI; the link of a version that was deleted leads nowhere', () =>
  withServer(async (server) => {
    const { config, db } = server.services;
    const id = store({ config, db }, 'brightness');
    const query = 'query ($id: ID!, $form: PackageForm!) { exportPackage(modelVersionId: $id, form: $form) { fileName url } }';
    const asked = { id: opaqueId('ModelVersion', id), form: 'TRITON' };
    expect((await server.graphql(query, asked)).errors?.[0].extensions.code).toBe('UNAUTHENTICATED');
    const { data } = await server.graphql(query, asked, await server.as('VIEWER'));
    const { fileName, url } = data.exportPackage;
    expect(fileName).toBe('brightness-1-triton.zip');
    const address = new URL(url, server.url);
    const response = await fetch(address);
    expect(response.headers.get('content-disposition')).toContain(fileName);
    expect(Buffer.from(await response.arrayBuffer()).equals(await zipOf({ config, db }, id, 'TRITON'))).toBe(true);
    expect((await fetch(address.href.replace('TRITON', 'BUNDLE'))).status).toBe(403);
    await withFolder((folder) =>
      withTui(
        server.url,
        async (tui) => {
          await logIn(tui, 'viewer');
          await tui.shows(/› +1/);
          tui.type('p');
          await tui.shows('Package brightness v1');
          tui.type(key.tab);
          tui.type(join(folder, 'own.zip'));
          tui.type(key.ctrlS);
          await tui.shows('Written to');
          expect(readFileSync(join(folder, 'own.zip')).equals(await zipOf({ config, db }, id, 'BUNDLE'))).toBe(true);
        },
        { first: { screen: 'model', id: 'brightness' }, columns: 120 },
      ),
    );
    db.update(modelVersion).set({ deletedAt: 1 }).run();
    expect((await fetch(address)).status).toBe(404);
    expect((await server.graphql(query, asked, await server.as('VIEWER'))).errors?.[0].extensions.code).toBe('NOT_FOUND');
  }));

/** What NVIDIA's own messages say of each text. */
async function parsedConfigs(texts: string[]) {
  // The package itself imports gRPC, which is not installed.
  const [file = ''] = globSync(join(dirname(python), '..', 'lib', '*', 'site-packages', 'tritonclient', 'grpc', 'model_config_pb2.py'));
  return withFolder(async (outer) => {
    copyFileSync(file, join(outer, 'model_config_pb2.py'));
    const script =
      'import json, sys, model_config_pb2 as m; from google.protobuf import json_format as j, text_format as t\n' +
      'print(json.dumps([j.MessageToDict(t.Parse(x, m.ModelConfig()), preserving_proto_field_name=True) for x in json.loads(sys.argv[1])]))';
    const { stdout } = await run(python, ['-c', script, JSON.stringify(texts)], { cwd: outer });
    return JSON.parse(stdout);
  });
}

describe('config.pbtxt is what Triton reads', () => {
  const source = (name: string, inputs: object[], outputs: object[], config: object = {}) =>
    ({ model: { name }, version: { number: 1 }, config: { task: 'CLASSIFICATION', ...config }, inputs, outputs }) as PackageSource;
  const typed = (name: string, datatype: string, shape: (number | string)[] | null) => ({ name, datatype, shape });
  const oddName = 'a "b" \\ \'c\'\n# größe 蓝';

  test('names of any letters, every element type, batches only where all share one symbol', async () => {
    const sources = [
      source('größe-蓝.v1', [typed('image', 'FP32', ['n', 3, 32, 32])], [typed('logits', 'FP32', ['n', 3])], { labels }),
      source('other', [typed(oddName, 'UINT8', ['n', 'height', 4])], [typed('y', 'INT64', ['m', 4]), typed('mean', 'FP64', [])]),
      source('words', [typed('x', 'STRING', ['n'])], [typed('y', 'BFLOAT16', ['n'])]),
    ];
    const texts = sources.map((one) => tritonTexts(one)[`repository/${one.model.name}/config.pbtxt`] as string);
    expect(await parsedConfigs(texts)).toEqual([
      {
        name: 'größe-蓝.v1',
        platform: 'onnxruntime_onnx',
        max_batch_size: 32,
        dynamic_batching: {},
        input: [{ name: 'image', data_type: 'TYPE_FP32', dims: ['3', '32', '32'] }],
        output: [{ name: 'logits', data_type: 'TYPE_FP32', dims: ['3'], label_filename: 'labels.txt' }],
      },
      {
        name: 'other',
        platform: 'onnxruntime_onnx',
        input: [{ name: oddName, data_type: 'TYPE_UINT8', dims: ['-1', '-1', '4'] }],
        output: [
          { name: 'y', data_type: 'TYPE_INT64', dims: ['-1', '4'] },
          { name: 'mean', data_type: 'TYPE_FP64', dims: ['1'], reshape: {} },
        ],
      },
      {
        name: 'words',
        platform: 'onnxruntime_onnx',
        max_batch_size: 32,
        dynamic_batching: {},
        input: [{ name: 'x', data_type: 'TYPE_STRING', dims: ['1'], reshape: {} }],
        output: [{ name: 'y', data_type: 'TYPE_BF16', dims: ['1'], reshape: {} }],
      },
    ]);
  });

  test('what Triton has no word for is refused', () => {
    expect(() => tritonTexts(source('a', [typed('x', 'FLOAT8E4M3FN', [1])], []))).toThrow('x is of the type FLOAT8E4M3FN');
    expect(() => tritonTexts(source('a', [], [typed('y', 'FP32', null)]))).toThrow('the shape of y');
  });
});

test('a KServe package has the repository beside a manifest with the V2 protocol', () =>
  withStorage(async (storage) => {
    const id = store(storage, 'brightness');
    storage.db.update(model).set({ name: 'Größe.蓝_2' }).run();
    await unpacked(await zipOf(storage, id, 'KSERVE'), async (own, names) => {
      expect(names.filter((name) => name.startsWith('repository'))).toEqual([
        'repository/Größe.蓝_2/1/model.onnx',
        'repository/Größe.蓝_2/config.pbtxt',
        'repository/Größe.蓝_2/labels.txt',
      ]);
      await run('sha256sum', ['-c', '--quiet', 'SHA256SUMS'], { cwd: own });
      expect(parse(readFileSync(join(own, 'inferenceservice.yaml'), 'utf8'))).toMatchObject({
        apiVersion: 'serving.kserve.io/v1beta1',
        kind: 'InferenceService',
        metadata: { name: 'gro-e-2', annotations: { 'whetstone/model': 'Größe.蓝_2', 'whetstone/version': '1' } },
        spec: { predictor: { model: { modelFormat: { name: 'triton' }, protocolVersion: 'v2', storageUri: 'pvc://models/gro-e-2' } } },
      });
    });
    expect(['蓝', '2-fast', 'a.'.repeat(50)].map(resourceName)).toEqual(['model', 'fast', 'a-'.repeat(20).slice(0, -1)]);
  }));
