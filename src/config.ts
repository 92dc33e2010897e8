import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { z } from 'zod';

const port = z.coerce.number().int().min(0).max(65_535);
const list = z.string().transform((text) =>
  text
    .split(',')
    .map((part) => part.trim())
    .filter(Boolean),
);

/**
 * Every setting of Whetstone. Each is an environment variable: `dataDir` is WHETSTONE_DATA_DIR, and so on. `npm start -- --help`
 * prints this table.
 */
const settings = z.object({
  host: z.string().default('127.0.0.1').describe('Address that the server listens on.'),
  port: port.default(8080).describe('Port of GraphQL, uploads, health and metrics; 0 takes a free one.'),
  dataDir: z
    .string()
    .default('data')
    .transform((path) => resolve(path))
    .describe('Folder of the database, the blobs and the keys.'),
  publicUrl: z
    .url({ protocol: /^https?$/ })
    .optional()
    .describe('Address under which people reach the server; for links.'),
  allowedOrigins: list.default([]).describe('Further web origins that may call the API, separated by commas.'),
  signingKeyFile: z.string().optional().describe('Ed25519 private key (PKCS #8, PEM) that signs access tokens; required in production.'),
  logLevel: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'silent']).default('info').describe('Least severe log line written.'),
  slots: z.coerce.number().int().min(1).max(64).default(2).describe('GPU jobs that run at the same time.'),
});

export type Config = Readonly<z.infer<typeof settings>> & { readonly production: boolean; readonly cores: number };

const prefix = 'WHETSTONE_';
const variableOf = (name: string) => prefix + name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase();

/** The configuration in `env`; throws one Error that names every setting that is wrong. Nothing else reads the environment. */
export function readConfig(env: Record<string, string | undefined>): Config {
  const names = new Map(Object.keys(settings.shape).map((name) => [variableOf(name), name]));
  // Set-up reads WHETSTONE_PYTHON; the server does not.
  const known = (variable: string) => names.has(variable) || variable === 'WHETSTONE_PYTHON';
  const problems = Object.keys(env)
    .filter((variable) => variable.startsWith(prefix) && !known(variable))
    .map((variable) => `${variable} is not a setting of Whetstone.`);
  const parsed = settings.safeParse(Object.fromEntries([...names].map(([variable, name]) => [name, env[variable] || undefined])));
  for (const issue of parsed.error?.issues ?? []) problems.push(`${variableOf(String(issue.path[0]))}: ${issue.message}.`);
  const production = env.NODE_ENV === 'production';
  if (production && parsed.success && !parsed.data.signingKeyFile) {
    problems.push(
      'WHETSTONE_SIGNING_KEY_FILE is required in production. Make a key with ' +
        '`openssl genpkey -algorithm ed25519 -out signing-key.pem`, keep it private (mode 0600), and set the variable to its path.',
    );
  }
  if (!parsed.success || problems.length > 0) throw new Error(`The configuration is wrong.\n${problems.join('\n')}`);
  return Object.freeze({ ...parsed.data, production, cores: availableParallelism() });
}

/** One line for each setting: variable, default, meaning. */
export function describeSettings(): string {
  return Object.entries(settings.shape)
    .map(([name, type]) => {
      const fallback = type.safeParse(undefined).data;
      const shown = name === 'dataDir' ? 'data' : Array.isArray(fallback) ? fallback.join(',') : fallback;
      return `${variableOf(name)}${shown === undefined || shown === '' ? '' : `=${shown}`}\n    ${type.description}`;
    })
    .join('\n');
}
