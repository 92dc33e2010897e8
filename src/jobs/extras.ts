/** Presets that need a package which the set-up installs only when it is asked to. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { refuse } from '../errors.ts';
import { trainerFolder } from '../python.ts';
import { timmPrefix } from './timm.ts';

/** The set-up installs it there (WHETSTONE_TIMM=1). */
const timm = join(trainerFolder, 'extras', 'timm');

export const isInstalled = (preset: string): boolean => !preset.startsWith(timmPrefix) || existsSync(timm);

/** Refuses a preset whose package is missing, before a job is made. */
export function requireInstalled(preset: string | null): void {
  if (preset === null || isInstalled(preset)) return;
  refuse(
    'INVALID',
    'preset',
    `The preset ${preset} needs timm, which is not installed: run \`WHETSTONE_TIMM=1 node scripts/setup.mjs\` on the server.`,
  );
}
