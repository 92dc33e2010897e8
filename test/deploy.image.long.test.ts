/**
 * The images of the Dockerfile, built and run for real without a container engine: `npm run test:image`. mmdebstrap makes a Debian of
 * packages, unless the variable BASE names an image that buildah can fetch.
 */
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, statfsSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { deployed, item } from './support/deployments.ts';
import { eventually } from './support/eventually.ts';
import { inferJson, makeInferenceModels } from './support/inference.ts';
import { type Child, freePort, withChild } from './support/process.ts';
import { adminName, adminPassword, postGraphql } from './support/server.ts';
import { type Api, digitsVersion, modelVersionOf, mutate, trained } from './support/training.ts';

const root = join(import.meta.dirname, '..');
const run = promisify(execFile);
const has = (program: string) => spawnSync(program, ['--version'], { stdio: 'ignore' }).status === 0;

/** Where the images and all files on the way to them lie: 4 GB for the inference host, 30 GB for the server with CUDA. */
const storage = process.env.IMAGE_STORAGE ?? '/var/tmp/whetstone-images';
const freeGb = () => {
  const { bavail, bsize } = statfsSync(dirname(storage));
  return (bavail * bsize) / 1e9;
};
const lacks = (gb: number): string => {
  if (process.getuid?.() !== 0) return ' (skipped: it needs root)';
  const missing = ['buildah', ...(process.env.BASE ? [] : ['mmdebstrap'])].filter((program) => !has(program));
  if (missing.length > 0) return ` (skipped: ${missing.join(' and ')} not installed)`;
  return freeGb() < gb ? ` (skipped: it needs ${gb} GB of disk, and ${freeGb().toFixed(0)} are free)` : '';
};

/** `overlay` shares the files of images and containers; `vfs` works everywhere and copies them. */
const driver = process.env.IMAGE_DRIVER ?? 'overlay';
const common = ['--root', join(storage, 'root'), '--runroot', join(storage, 'run'), '--storage-driver', driver];
const buildah = (...args: string[]) =>
  run('buildah', [...common, ...args], { cwd: root, maxBuffer: 1e9, env: { ...process.env, TMPDIR: storage } }).then(({ stdout }) =>
    stdout.trim(),
  );

/** Which PyTorch, and the machine's own registries and certificates, where there are such. */
const certificates = '/etc/ssl/certs/ca-certificates.crt';
const buildArguments = {
  ...Object.fromEntries(['TORCH', 'NPM_CONFIG_REGISTRY', 'PIP_INDEX_URL', 'UV_DEFAULT_INDEX'].map((name) => [name, process.env[name]])),
  ...(existsSync(certificates) ? { SSL_CERT_FILE: certificates, NODE_EXTRA_CA_CERTS: certificates, PIP_CERT: certificates } : {}),
};

let base = process.env.BASE ?? '';
beforeAll(async () => {
  if (lacks(0) !== '') return;
  mkdirSync(storage, { recursive: true });
  if (base) return;
  const tar = join(storage, 'debian.tar');
  const hooks = existsSync(certificates) ? [`--customize-hook=upload ${certificates} ${certificates}`] : [];
  await run('mmdebstrap', ['--variant=minbase', '--include=ca-certificates', ...hooks, 'trixie', tar], { maxBuffer: 1e8 });
  const container = await buildah('from', 'scratch');
  await buildah('add', container, tar, '/');
  await buildah('commit', '--rm', container, 'localhost/debian');
  await run('rm', [tar]);
  base = 'localhost/debian';
}, 900_000);

afterAll(async () => {
  if (lacks(0) !== '') return;
  await buildah('rm', '--all');
  await buildah('rmi', '--all', '--force');
  spawnSync('umount', [join(storage, 'root', driver)], { stdio: 'ignore' });
  execFileSync('rm', ['-rf', storage]);
}, 300_000);

async function build(target: string): Promise<string> {
  const given = Object.entries(buildArguments).flatMap(([name, value]) => (value ? ['--build-arg', `${name}=${value}`] : []));
  const image = `localhost/whetstone-${target}`;
  await buildah(
    ...['build', '--layers', '--isolation', 'chroot', '--network', 'host', '--format', 'docker', '--build-arg', `BASE=${base}`, ...given],
    ...['--target', target, '--tag', image, '.'],
  );
  const { size } = JSON.parse(await buildah('images', '--json', image))[0];
  console.log(`The image ${target} has ${size}.`);
  return image;
}

interface Configured {
  Entrypoint: string[];
  Cmd: string[];
  User: string;
  Healthcheck: { Test: string[] };
}

/**
 * As docker-compose.yml starts it: as its user, without capabilities, on a file system that can be written in /tmp and the volumes only. buildah
 * starts a shell as root, which takes these rights from itself.
 */
const asComposeDoes = (user: string) => [
  ...['sh', '-c'],
  'mount -o remount,bind,ro / && mount -t tmpfs tmpfs /tmp && exec setpriv "$@"',
  ...['sh', '--reuid', user, '--regid', user, '--clear-groups', '--inh-caps=-all', '--bounding-set=-all', '--no-new-privs', '--'],
];
const rightsToDrop = ['SYS_ADMIN', 'SETUID', 'SETGID', 'SETPCAP'].flatMap((name) => ['--cap-add', `CAP_${name}`]);

/** A container of the image with these volumes; `use` gets how it is to be started. It is gone afterwards. */
async function withContainer<T>(
  image: string,
  volumes: string[],
  env: Record<string, string>,
  use: (start: (command?: string[]) => string[], config: Configured) => Promise<T>,
): Promise<T> {
  const container = await buildah('from', image);
  // buildah mounts an empty folder of its own over one that is given for a declared volume.
  await buildah('config', ...volumes.flatMap((volume) => ['--volume', `${volume.split(':')[1]}-`]), container);
  const { Docker } = JSON.parse(await buildah('inspect', container));
  const config: Configured = Docker.config;
  const options = [...volumes.flatMap((v) => ['-v', v]), ...Object.entries(env).flatMap(([name, value]) => ['--env', `${name}=${value}`])];
  const start = (command = [...config.Entrypoint, ...config.Cmd]) => [
    ...common,
    ...['run', '--isolation', 'chroot', '--network', 'host', '--user', 'root', ...rightsToDrop, ...options, container, '--'],
    ...asComposeDoes(config.User),
    ...command,
  ];
  try {
    return await use(start, config);
  } finally {
    await buildah('rm', container);
  }
}

const succeeds = (command: string[]) => spawnSync('buildah', command, { stdio: 'ignore' }).status === 0;

/** What the health check of the image says. */
const isHealthy = (start: (command?: string[]) => string[], { Healthcheck }: Configured) => succeeds(start(Healthcheck.Test.slice(1)));

/** The first process of the container, which buildah has started. */
function firstOf({ pid }: Child): number {
  const parentOf = (of: string) => Number(/\) \S (\d+)/.exec(readFileSync(`/proc/${of}/stat`, 'utf8'))?.[1]);
  const below = (of: string): boolean => {
    for (let parent = parentOf(of); parent > 1; parent = parentOf(`${parent}`)) if (parent === pid) return true;
    return false;
  };
  const found = readdirSync('/proc').find((one) => {
    try {
      return /^\d+$/.test(one) && readFileSync(`/proc/${one}/comm`, 'utf8') === 'tini\n' && below(one);
    } catch {
      return false;
    }
  });
  if (!found) throw new Error('The container has no tini.');
  return Number(found);
}

/** Starts a container, runs `use` when it has logged `message`, and stops it with SIGTERM. */
const whileRunning = (command: string[], message: string, use: () => Promise<void>): Promise<void> =>
  withChild(
    command,
    {},
    async (child) => {
      await child.line((line) => line.includes(`"${message}"`));
      const first = firstOf(child);
      try {
        const status = readFileSync(`/proc/${first}/status`, 'utf8');
        expect(status).toMatch(/^Uid:(\t10001){4}$/m);
        expect(status).toMatch(/^CapPrm:\t0+$/m);
        expect(status).toMatch(/^CapBnd:\t0+$/m);
        expect(status).toMatch(/^NoNewPrivs:\t1$/m);
        await use();
      } finally {
        process.kill(first, 'SIGTERM');
      }
      expect((await child.exit).code).toBe(0);
    },
    'buildah',
  );

describe('the image of the inference host', () => {
  const why = lacks(6);
  test.skipIf(why)(`serves a model without Python and without rights, and stops on SIGTERM${why}`, async () => {
    const image = await build('inference');
    const models = join(storage, 'models');
    mkdirSync(models, { recursive: true });
    await makeInferenceModels(models, ['identity']);
    const sha256 = createHash('sha256')
      .update(readFileSync(join(models, 'identity.onnx')))
      .digest('hex');
    const port = await freePort();
    writeFileSync(
      join(models, 'models.json'),
      JSON.stringify({ port, models: [{ name: 'echo', version: 1, file: 'identity.onnx', sha256 }] }),
    );
    await withContainer(image, [`${models}:/etc/whetstone:ro`], {}, async (start) => {
      expect(succeeds(start(['test', '-f', 'inference-native/build/whetstone.node']))).toBe(true);
      await whileRunning(start(), 'inference host is ready', async () => {
        expect((await inferJson(`http://127.0.0.1:${port}`, 'echo', item(1))).json.outputs[0].data).toEqual(item(1).inputs[0]?.data);
      });
    });
  });
});

describe('the image of the server', () => {
  const why = lacks(16);
  test.skipIf(why)(`trains, deploys and infers on a volume, stops on SIGTERM and starts with it again${why}`, async () => {
    const image = await build('server');
    const data = join(storage, 'data');
    mkdirSync(data, { recursive: true });
    execFileSync('chown', ['10001:10001', data]);
    const [port, inference] = [await freePort(), await freePort()];
    const env = { WHETSTONE_PORT: `${port}`, WHETSTONE_INFERENCE_PORT: `${inference}`, WHETSTONE_HOST: '127.0.0.1' };
    const url = `http://127.0.0.1:${port}`;
    const api: Api = { url, token: '' };
    const logIn = async () => {
      const login = `mutation { login(input: {name: "${adminName}", password: "${adminPassword}"}) { credentials { accessToken } } }`;
      api.token = (await postGraphql(url, login)).data.login.credentials.accessToken;
    };
    const infer = async () =>
      (await inferJson(`http://127.0.0.1:${inference}`, 'echo', item(2), { headers: { authorization: `Bearer ${api.token}` } })).json
        .outputs[0].data;

    await withContainer(image, [`${data}:/data`], env, async (start, config) => {
      expect(['/tmp/x', '/data/x', '/opt/whetstone/x', '/x'].map((path) => succeeds(start(['touch', path])))).toEqual([
        true,
        true,
        false,
        false,
      ]);
      expect(isHealthy(start, config)).toBe(false);
      const serve = (use: () => Promise<void>) => {
        const startedAt = performance.now();
        return whileRunning(start(), 'whetstone is ready', () => {
          console.log(`The server in the container is ready after ${((performance.now() - startedAt) / 1000).toFixed(1)} s.`);
          return use();
        });
      };
      await serve(async () => {
        expect(isHealthy(start, config)).toBe(true);
        const token = readFileSync(join(data, 'bootstrap-token'), 'utf8').trim();
        const account = `name: "${adminName}", password: "${adminPassword}"`;
        await postGraphql(url, `mutation { bootstrap(input: {token: "${token}", ${account}}) { user { id } } }`);
        await logIn();
        const datasetVersionId = await digitsVersion(api, [0, 1], 12);
        const hyperparameters = { imageSize: 32, epochs: 1, batchSize: 8 };
        const input = { modelName: 'digits', datasetVersionId, preset: 'resnet18', hyperparameters };
        await trained(api, (await mutate(api, 'startTraining', input, 'job { id }')).job.id);
        await makeInferenceModels(storage, ['identity']);
        await deployed(api, 'echo', await modelVersionOf(api, 'echo', join(storage, 'identity.onnx')));
        expect(await infer()).toEqual(item(2).inputs[0]?.data);
      });
      await serve(async () => {
        await logIn();
        await eventually(async () => expect(await infer()).toEqual(item(2).inputs[0]?.data));
        const { data: seen } = await postGraphql(url, '{ model(name: "digits") { versions { nodes { format state } } } }', {}, api.token);
        expect(seen.model.versions.nodes).toHaveLength(2);
      });
    });
  });
});

test.skipIf(lacks(2))(`docker-compose.yml starts the services of each profile${lacks(2)}`, async () => {
  const container = await buildah('from', base);
  const inside = (command: string) =>
    buildah(
      ...['run', '--isolation', 'chroot', '--network', 'host', '-v', `${root}/docker-compose.yml:/project/docker-compose.yml:ro`],
      ...[container, '--', 'sh', '-c', command],
    );
  const servicesOf = async (options: string) =>
    (await inside(`cd /project && docker-compose ${options} config --services`)).split('\n').sort();
  try {
    await inside('apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends docker-compose');
    expect(await servicesOf('')).toEqual(['server']);
    expect(await servicesOf('--profile tls')).toEqual(['caddy', 'server']);
    expect(await servicesOf('--profile replica')).toEqual(['replica', 'server']);
    expect(await servicesOf('--profile monitoring')).toEqual(['grafana', 'prometheus', 'server']);
    expect(await servicesOf('--profile gpu')).toEqual(['server', 'server-gpu']);
    const { services } = JSON.parse(await inside("cd /project && docker-compose --profile '*' config --format json"));
    const declared = [...readFileSync(join(root, 'Dockerfile'), 'utf8').matchAll(/^(?:ARG|FROM .* AS) (\w+)/gm)].map(([, name]) => name);
    const used = Object.values<{ build?: { args: object; target?: string } }>(services).flatMap(({ build }) =>
      build ? [...Object.keys(build.args), ...(build.target ? [build.target] : [])] : [],
    );
    expect(used.filter((name) => !declared.includes(name))).toEqual([]);
  } finally {
    await buildah('rm', container);
  }
});
