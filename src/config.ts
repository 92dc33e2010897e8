import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { z } from 'zod';
import { addressForm, isAddress } from '../client/address.ts';
import { AddressRanges } from './addressRanges.ts';
import { HostEngine } from './engine/hostEngine.ts';
import { isInside } from './folders.ts';
import { rangeProblem } from './ranges.ts';
import { suggestion } from './suggest.ts';
import { hostVariables, readTracing, type TracingSettings } from './tracingSettings.ts';

const port = z.coerce.number().int().min(0).max(65_535);
const bytes = z.coerce.number().int().min(0);
const days = z.coerce.number().int().min(2).max(36_500);
const list = z.string().transform((text) =>
  text
    .split(',')
    .map((part) => part.trim())
    .filter(Boolean),
);

/**
 * Every setting of Whetstone. Each is an environment variable: `dataDir` is WHETSTONE_DATA_DIR, and so on. `./whetstone serve --help`
 * prints this table.
 */
const settings = z.object({
  host: z.string().default('127.0.0.1').describe('Address that the server listens on.'),
  port: port.default(8080).describe('Port of GraphQL, uploads, health and metrics; 0 takes a free one.'),
  inferencePort: port.default(8000).describe('Port of the inference host (docs/serving.md); 0 takes a free one.'),
  inferencePermits: z.coerce
    .number()
    .int()
    .min(1)
    .max(256)
    .optional()
    .describe('Runs that the inference host computes at the same time; without it one for each core, at most 16.'),
  inferenceEngine: HostEngine,
  inferenceMemoryBytesMax: bytes
    .min(1)
    .optional()
    .describe('Memory that the inference host may have with all its models; without it half of the machine’s.'),
  replicaToken: z
    .string()
    .regex(/^[\x21-\x7e]{32,1000}$/, 'it has at least 32 characters and no spaces. Make one with `openssl rand -hex 32`')
    .optional()
    .describe('Secret with which replicas, inference hosts by themselves, fetch the accounts; without it none can.'),
  dataDir: z
    .string()
    .default('data')
    .transform((path) => resolve(path))
    .describe('Folder of the database, the blobs and the keys.'),
  publicUrl: z
    .url({ protocol: /^https?$/, error: ({ input }) => `“${String(input).slice(0, 100)}” is not an address such as https://lab.example.` })
    .optional()
    .describe('Address under which people reach the server; for links.'),
  allowedOrigins: list
    .pipe(z.array(z.url({ protocol: /^https?$/, error: 'each is an address such as https://lab.example' })))
    .default([])
    .describe('Further web origins that may call the API, separated by commas.'),
  trustedProxies: list
    .pipe(AddressRanges)
    .default([])
    .describe('Addresses and ranges, separated by commas, of the reverse proxies whose X-Forwarded-For header says who a client is.'),
  webhookAddresses: list
    .pipe(AddressRanges)
    .default([])
    .describe('Private addresses and ranges, separated by commas, that webhooks may be sent to; without it only public ones.'),
  signingKeyFile: z.string().optional().describe('Ed25519 private key (PKCS #8, PEM) that signs access tokens; required in production.'),
  logLevel: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'silent']).default('info').describe('Least severe log line written.'),
  slots: z.coerce.number().int().min(1).max(64).default(2).describe('GPU jobs that run at the same time.'),
  trainingCacheDiskBytes: bytes
    .default(0)
    .describe('Bytes of the disk that a training may use for decoded images, where 2 GiB of its memory hold only a part of them.'),
  uploadBytesMax: bytes
    .min(1)
    .default(50 * 1024 ** 3)
    .describe('Largest file that can be uploaded, in bytes.'),
  importFilesMax: z.coerce
    .number()
    .int()
    .min(1)
    .max(20_000_000)
    .default(2_000_000)
    .describe('Most files and folders in the zip of a dataset.'),
  importBytesMax: bytes
    .min(1)
    .optional()
    .describe('Most bytes that the files in the zip of a dataset may have; without it 100 times the size of the zip.'),
  auditDays: days
    .default(365)
    .describe(
      'Days that a line of the audit log stays in the database; at most a million do. Then it goes to a file in `audit` of the data folder.',
    ),
  auditFileDays: days.default(3650).describe('Days that these files of the audit log stay.'),
  jobHistoryDays: days
    .default(365)
    .describe('Days after its end that the events and the curves of a job, and the events of a study, stay.'),
  jobDays: days
    .optional()
    .describe(
      'Days after its end that a job or a study stays, with its reports, unless a version needs it; without it until deleteJob or deleteStudy.',
    ),
  jobLogDays: days.default(90).describe('Days after its end that the log of a job stays.'),
  workDays: days
    .default(7)
    .describe('Days after its end that the checkpoint of a job stays that failed or was cancelled: `retryJob` continues from it.'),
  backupFolder: z
    .string()
    .optional()
    .transform((path) => (path === undefined ? undefined : resolve(path)))
    .describe('Folder outside of the data folder for backups, best on another disk; without it the server makes none by itself.'),
  backupHours: z.coerce.number().int().min(1).max(8760).default(24).describe('Hours from one of these backups to the next.'),
  backupKeep: z.coerce.number().int().min(1).max(10_000).default(7).describe('How many backups stay in that folder.'),
  diskReserveBytes: bytes.default(1024 ** 3).describe('Bytes of the disk that uploads and imports of datasets leave free.'),
});

/** What the commands read that talk to a server. */
const clientSettings = z.object({
  url: z
    .string()
    .refine(isAddress, { error: ({ input }) => `“${String(input).slice(0, 100)}” is not ${addressForm}.` })
    .default('http://127.0.0.1:8080')
    .describe('Server that the commands talk to, such as `watch` and `predict`.'),
  token: z.string().optional().describe('API key or access token for these commands; without one they ask for a name and a password.'),
  refreshToken: z
    .string()
    .optional()
    .describe(
      'Refresh token of a login for one command, which may then take longer than an access token is valid. It logs out at its end.',
    ),
});

/** What the set-up reads (scripts/setup.mjs), and the environment of production. */
const otherVariables = {
  WHETSTONE_PYTHON: 'Python interpreter that the set-up makes its environment of; without it the newest that is found.',
  WHETSTONE_SKIP_NATIVE: '1 leaves the native runtime out of the set-up: models run on onnxruntime-node.',
  WHETSTONE_OPENVINO: '1 installs OpenVINO with the set-up, a further engine. It stays, without the setting too.',
  WHETSTONE_TIMM: '1 installs timm with the set-up, for more presets of classifiers. It stays, without the setting too.',
  WHETSTONE_OPENVINO_LIBRARY:
    'File of another OpenVINO, its libopenvino_c.so.<version>; without it that of the set-up, then that of the system.',
  WHETSTONE_NVML_LIBRARY: 'File of NVIDIA’s management library, libnvidia-ml.so.1; without it that of the system.',
  WHETSTONE_SKIP_DISK_CHECK: '1 skips the check of the set-up for free disk space.',
  OTEL_EXPORTER_OTLP_ENDPOINT:
    'Address of an OpenTelemetry collector that traces are sent to over HTTP; without it none are made. docs/deployment.md names the other OTEL_ variables.',
  NODE_ENV: '`production` requires WHETSTONE_SIGNING_KEY_FILE, instead of making a key in the data folder.',
};

/** What a job's child inherits of the server's environment: no secret of the server. */
const inherited = [
  'PATH',
  'HOME',
  'LANG',
  'LD_LIBRARY_PATH',
  'TORCH_HOME',
  'CC',
  'CXX',
  'HTTPS_PROXY',
  'NO_PROXY',
  'SSL_CERT_FILE',
  'WHETSTONE_OPENVINO_LIBRARY',
  'WHETSTONE_NVML_LIBRARY',
];

export type ClientConfig = Readonly<z.infer<typeof clientSettings>> & {
  /** The folder that relative paths start from: npm changes into the package's, and says where it was called. */
  readonly folder: string;
};
export type Config = Readonly<z.infer<typeof settings>> & {
  readonly production: boolean;
  readonly cores: number;
  readonly childEnv: Readonly<Record<string, string>>;
  /** Null: no traces. */
  readonly tracing: TracingSettings | null;
  /** What the inference host inherits beyond `childEnv`. */
  readonly hostEnv: Readonly<Record<string, string>>;
};

const prefix = 'WHETSTONE_';
export const variableOf = (name: string) => prefix + name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase();

/** Every variable that is read, and those of the set-up. */
const known = new Set([...Object.keys({ ...settings.shape, ...clientSettings.shape }).map(variableOf), ...Object.keys(otherVariables)]);

type Environment = Record<string, string | undefined>;

/** The settings of `schema` in `env`, and a line for each that is wrong and for each variable that nobody reads. */
function parseSettings<T>(schema: z.ZodType<T> & { shape: object }, env: Environment): { data: T | undefined; problems: string[] } {
  const unknown = Object.keys(env).filter((variable) => variable.startsWith(prefix) && !known.has(variable));
  const given = Object.fromEntries(Object.keys(schema.shape).map((name) => [name, env[variableOf(name)] || undefined]));
  const parsed = schema.safeParse(given, { error: rangeProblem });
  const wrong = parsed.error?.issues.map((issue) => `${variableOf(String(issue.path[0]))}: ${issue.message.replace(/\.?$/, '.')}`) ?? [];
  return {
    data: parsed.data,
    problems: [...unknown.map((variable) => `${variable} is not a setting of Whetstone.${suggestion(variable, [...known])}`), ...wrong],
  };
}

function refuseSettings(problems: string[]): never {
  throw new Error(`The configuration is wrong.\n${problems.join('\n')}`);
}

/** Settings that are right by themselves, and not together. */
function contradictions({ dataDir, backupFolder, port, inferencePort }: z.infer<typeof settings>): string[] {
  const problems: string[] = [];
  if (backupFolder !== undefined && isInside(dataDir, backupFolder)) {
    problems.push(
      `WHETSTONE_BACKUP_FOLDER: ${backupFolder} is inside of the data folder ${dataDir} (WHETSTONE_DATA_DIR), and would be lost with it. ` +
        'Name a folder elsewhere, best on another disk.',
    );
  }
  if (port !== 0 && port === inferencePort) {
    problems.push(
      `WHETSTONE_INFERENCE_PORT: ${port} is the port of the server too (WHETSTONE_PORT). Name another one, or 0 for a free one.`,
    );
  }
  return problems;
}

/** The configuration in `env`; throws one Error that names every setting that is wrong. Nothing else reads the environment. */
export function readConfig(env: Environment): Config {
  const { data, problems } = parseSettings(settings, env);
  const production = env.NODE_ENV === 'production';
  if (production && data && !data.signingKeyFile) {
    problems.push(
      'WHETSTONE_SIGNING_KEY_FILE is required in production. Make a key with ' +
        '`openssl genpkey -algorithm ed25519 -out signing-key.pem`, keep it private (mode 0600), and set the variable to its path.',
    );
  }
  if (data) problems.push(...contradictions(data));
  const traced = readTracing(env);
  problems.push(...traced.problems);
  if (!data || problems.length > 0) refuseSettings(problems);
  const { tracing } = traced;
  const hostEnv = tracing ? hostVariables(env) : {};
  const childEnv = Object.fromEntries(inherited.flatMap((name) => (env[name] === undefined ? [] : [[name, env[name]]])));
  return Object.freeze({ ...data, production, cores: availableParallelism(), childEnv, tracing, hostEnv });
}

/** The secret of an inference host by itself; undefined where there is none. */
export function readReplicaToken(env: Environment): string | undefined {
  const { data, problems } = parseSettings(settings.pick({ replicaToken: true }), env);
  if (!data || problems.length > 0) refuseSettings(problems);
  return data.replicaToken;
}

/** The settings of a command that talks to a server. */
export function readClientConfig(env: Environment): ClientConfig {
  const { data, problems } = parseSettings(clientSettings, env);
  if (!data || problems.length > 0) refuseSettings(problems);
  return Object.freeze({ ...data, folder: env.INIT_CWD ?? process.cwd() });
}

export interface DescribedSetting {
  variable: string;
  /** Empty where there is none. */
  fallback: string;
  description: string;
}

function describeShape(shape: z.ZodRawShape): DescribedSetting[] {
  return Object.entries(shape).map(([name, type]) => {
    const { data } = (type as z.ZodType).safeParse(undefined);
    const fallback = name === 'dataDir' ? 'data' : Array.isArray(data) ? data.join(',') : String(data ?? '');
    return { variable: variableOf(name), fallback, description: (type as z.ZodType).description ?? '' };
  });
}

/** Every setting by who reads it, in the order of the code: for the help and docs/settings.md. */
export const describedSettings: Record<'server' | 'commands' | 'other', DescribedSetting[]> = {
  server: describeShape(settings.shape),
  commands: describeShape(clientSettings.shape),
  other: Object.entries(otherVariables).map(([variable, description]) => ({ variable, fallback: '', description })),
};

/** The help's text about some settings: variable, default, meaning. */
export function describeSettings(of: readonly DescribedSetting[]): string {
  const lines = of.map(({ variable, fallback, description }) => `${variable}${fallback && `=${fallback}`}\n    ${description}`);
  return `\nSettings (environment variables with their defaults):\n${lines.join('\n')}`;
}
