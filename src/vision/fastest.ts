/** What the native runtime computes faster, where it is built. Nothing is loaded before it is wanted. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { nativeAddon } from '../engine/libraries.ts';

let addon: object | undefined;

/** The addon, which has the functions of `inTypeScript` with the same results; that where the addon is not built. */
export function fastest<T extends object>(inTypeScript: T): T {
  addon ??= existsSync(nativeAddon) ? (createRequire(import.meta.url)(nativeAddon) as object) : {};
  return { ...inTypeScript, ...addon };
}
