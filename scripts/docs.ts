// Writes the generated parts of the documents from the code; with --check it fails when one of them differs.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { permissions } from '../src/accounts/permissions.ts';
import { roles } from '../src/accounts/tables.ts';
import { program, settingsOfCommands } from '../src/commands.ts';
import { describedSettings } from '../src/config.ts';
import { errorCodes } from '../src/errors.ts';
import { schema } from '../src/graphql/schema.ts';
import { classifiers } from '../src/jobs/classifiers.ts';
import { type PresetName, presets } from '../src/jobs/presets.ts';
import { timmClassifiers } from '../src/jobs/timm.ts';

const folder = join(import.meta.dirname, '..', 'docs');

const row = (cells: string[]): string => `| ${cells.join(' | ')} |`;
const table = (head: string[], rows: string[][]): string => [head, head.map(() => '---'), ...rows].map(row).join('\n');
const code = (text: string): string => `\`${text}\``;

/** Root fields by the permission that they need. */
function fieldsOf(permission: string): string[] {
  const types = [schema.getQueryType(), schema.getMutationType(), schema.getSubscriptionType()];
  const names = types.flatMap((type) =>
    Object.values(type?.getFields() ?? {})
      .filter(({ extensions }) => {
        const { authScopes: scopes } = extensions.pothosOptions as { authScopes?: { can?: string; $all?: { can?: string } } };
        return (scopes?.$all ?? scopes)?.can === permission;
      })
      .map(({ name }) => code(name)),
  );
  return [...new Set(names)];
}

const classifierTable = (rows: object): string =>
  table(
    ['Preset', 'Image size', 'Million parameters', 'Billion multiplications'],
    (Object.keys(rows) as PresetName[]).map((name) => {
      const { hyperparameters, parameters, macs } = presets[name];
      return [code(name), `${hyperparameters.parse({}).imageSize}`, (parameters / 1e6).toFixed(1), (macs / 1e9).toFixed(2)];
    }),
  );

const settingsOf = (part: keyof typeof describedSettings): string =>
  table(
    ['Variable', 'Default', 'Meaning'],
    describedSettings[part].map(({ variable, fallback, description }) => [code(variable), fallback && code(fallback), description]),
  );

/** The help of a command and of those below it, as wide everywhere. A list of settings stands elsewhere. */
const helpOf = (command: Command): string[] => {
  const help = command.configureHelp({ helpWidth: 120 }).helpInformation().trimEnd();
  const settings = settingsOfCommands.get(command)?.map(({ variable }) => code(variable));
  const listed = settings && (settings.length > 5 ? 'those of the server' : settings.join(', '));
  return [`\`\`\`text\n${help}\n\`\`\``, ...(listed ? [`[Settings](settings.md): ${listed}.`] : []), ...command.commands.flatMap(helpOf)];
};

const generated: Record<string, () => string> = {
  commands: () =>
    table(
      ['Command', 'Does'],
      program.commands.map((command) => [`[${code(command.name())}](#${command.name()})`, command.summary() || command.description()]),
    ),
  commandHelp: () => program.commands.map((command) => `### ${command.name()}\n\n${helpOf(command).join('\n\n')}`).join('\n\n'),

  serverSettings: () => settingsOf('server'),
  commandSettings: () => settingsOf('commands'),
  otherSettings: () => settingsOf('other'),
  detectors: () =>
    table(
      ['Preset', 'Backbone', 'Million parameters', 'Billion multiplications'],
      Object.entries(presets)
        .filter(([, { task }]) => task === 'DETECTION')
        .map(([name, { backbone, parameters, macs }]) => [
          code(name),
          backbone ? `that of ${code(backbone)}` : 'its own',
          (parameters / 1e6).toFixed(1),
          (macs / 1e9).toFixed(1),
        ]),
    ),
  classifiers: () => classifierTable(classifiers),
  timm: () => classifierTable(timmClassifiers),
  roles: () =>
    table(
      ['Permission', ...roles.map((role) => role.charAt(0) + role.slice(1).toLowerCase()), 'Opens'],
      Object.entries(permissions).map(([permission, allowed]) => [
        code(permission),
        ...roles.map((role) => ((allowed as readonly string[]).includes(role) ? 'yes' : '')),
        fieldsOf(permission).join(', '),
      ]),
    ),
  errors: () =>
    table(
      ['Code', 'HTTP status', 'Retryable', 'Meaning'],
      Object.entries(errorCodes).map(([name, { status, retryable, description }]) => [
        code(name),
        `${status}`,
        retryable ? 'yes' : '',
        description,
      ]),
    ),
};

const stale = readdirSync(folder).filter((name) => {
  if (!name.endsWith('.md')) return false;
  const path = join(folder, name);
  const written = readFileSync(path, 'utf8');
  const made = written.replace(
    /(<!-- generated: (\w+) -->\n)[\s\S]*?(<!-- end -->)/g,
    (_, start: string, part: string, end: string) => `${start}\n${generated[part]?.() ?? ''}\n\n${end}`,
  );
  if (made === written) return false;
  if (!process.argv.includes('--check')) writeFileSync(path, made);
  return true;
});
if (stale.length > 0 && process.argv.includes('--check')) {
  console.error(`${stale.join(', ')}: the generated parts are not what the code makes. Run: npm run docs`);
  process.exit(1);
}
