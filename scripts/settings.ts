// Writes docs/settings.md from the code; with --check it fails when the committed file differs.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describedSettings } from '../src/config.ts';

const path = join(import.meta.dirname, '..', 'docs', 'settings.md');

const tableOf = (part: keyof typeof describedSettings): string =>
  ['| Variable | Default | |', '|---|---|---|']
    .concat(
      describedSettings[part].map(
        ({ variable, fallback, description }) => `| \`${variable}\` | ${fallback && `\`${fallback}\``} | ${description} |`,
      ),
    )
    .join('\n');

const printed = `# Settings

Every setting is an environment variable. A variable that begins with \`WHETSTONE_\` and is not in these tables ends the start: it is most
likely misspelt, and the message names the nearest. \`npm start -- --help\` prints the same. This file is made from \`src/config.ts\` by
\`npm run settings\`.

## Server

${tableOf('server')}

## Commands \`upload\` and \`watch\`

${tableOf('commands')}

## Set-up and production

${tableOf('other')}

An inference host by itself has a file with settings of its own: [serving.md](serving.md#settings).
`;
if (!process.argv.includes('--check')) {
  writeFileSync(path, printed);
} else if (readFileSync(path, 'utf8') !== printed) {
  console.error('docs/settings.md is not what the code makes. Run: npm run settings');
  process.exit(1);
}
