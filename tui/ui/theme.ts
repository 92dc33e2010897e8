/**
 * The colours by what they mean. They are those of Okabe and Ito, which people with any kind of colour vision tell apart; and nothing is shown by
 * colour alone. Without colours (NO_COLOR) bold and inverse text stay.
 */
export interface Theme {
  accent: string | undefined;
  good: string | undefined;
  bad: string | undefined;
  warn: string | undefined;
  muted: string | undefined;
  /** Curves of one chart, in this order. */
  series: (string | undefined)[];
}

const none: Theme = { accent: undefined, good: undefined, bad: undefined, warn: undefined, muted: undefined, series: [undefined] };
/** The terminal's own 16 colours, which fit its background. */
const sixteen: Theme = {
  accent: 'cyan',
  good: 'green',
  bad: 'red',
  warn: 'yellow',
  muted: 'gray',
  series: ['cyan', 'yellow', 'magenta', 'blue'],
};
const dark: Theme = {
  accent: '#56b4e9',
  good: '#2fbf92',
  bad: '#f0743e',
  warn: '#e69f00',
  muted: '#9a9a9a',
  series: ['#56b4e9', '#e69f00', '#2fbf92', '#cc79a7'],
};
const light: Theme = {
  accent: '#0072b2',
  good: '#00735a',
  bad: '#b34700',
  warn: '#8a5a00',
  muted: '#666666',
  series: ['#0072b2', '#b34700', '#00735a', '#a04b7d'],
};

export type ColourDepth = 'NONE' | 'SIXTEEN' | 'MANY' | 'TRUE';

/** How many colours the terminal has: MANY are 256. */
export function colourDepthOf(env: NodeJS.ProcessEnv): ColourDepth {
  if (env.NO_COLOR || env.TERM === 'dumb') return 'NONE';
  if (/truecolor|24bit/i.test(env.COLORTERM ?? '')) return 'TRUE';
  return /256color/.test(env.TERM ?? '') ? 'MANY' : 'SIXTEEN';
}

/** WHETSTONE_THEME is `light` or `dark`; without it COLORFGBG tells the background, which many terminals set. */
export function themeOf(env: NodeJS.ProcessEnv): Theme {
  const depth = colourDepthOf(env);
  if (depth === 'NONE') return none;
  if (depth === 'SIXTEEN') return sixteen;
  const background = Number(env.COLORFGBG?.split(';').at(-1) ?? 0);
  const isLight = env.WHETSTONE_THEME ? env.WHETSTONE_THEME === 'light' : background === 7 || background === 15;
  return isLight ? light : dark;
}

/** The Linux console and terminals without UTF-8 have no braille. */
export function glyphsOf(env: NodeJS.ProcessEnv): 'braille' | 'blocks' {
  if (env.WHETSTONE_CHARTS === 'blocks' || env.WHETSTONE_CHARTS === 'braille') return env.WHETSTONE_CHARTS;
  const locale = env.LC_ALL || env.LC_CTYPE || env.LANG || '';
  return env.TERM === 'linux' || (locale !== '' && !/utf-?8/i.test(locale)) ? 'blocks' : 'braille';
}

export const theme = themeOf(process.env);
export const colourDepth = colourDepthOf(process.env);
export const glyphs = glyphsOf(process.env);

/** How a state is drawn: the sign alone identifies it where there is no colour. */
export const states: Record<string, { sign: string; color: string | undefined }> = {
  RUNNING: { sign: '▶', color: theme.accent },
  STARTING: { sign: '▷', color: theme.accent },
  LOADING: { sign: '▷', color: theme.accent },
  IMPORTING: { sign: '▷', color: theme.accent },
  PENDING: { sign: '·', color: theme.muted },
  QUEUED: { sign: '·', color: theme.muted },
  CANCELLING: { sign: '◌', color: theme.warn },
  SUSPENDED: { sign: '‖', color: theme.warn },
  SUCCEEDED: { sign: '✓', color: theme.good },
  DELIVERED: { sign: '✓', color: theme.good },
  READY: { sign: '✓', color: theme.good },
  ACTIVE: { sign: '✓', color: theme.good },
  VALID: { sign: '✓', color: theme.good },
  FAILED: { sign: '✗', color: theme.bad },
  CRASHED: { sign: '✗', color: theme.bad },
  LOST: { sign: '✗', color: theme.bad },
  INVALID: { sign: '✗', color: theme.bad },
  UNSTABLE: { sign: '~', color: theme.warn },
  CANCELLED: { sign: '○', color: theme.muted },
  WAITING: { sign: '·', color: theme.muted },
  COMPLETE: { sign: '✓', color: theme.good },
  STOPPED: { sign: '○', color: theme.muted },
  WORST: { sign: '✗', color: theme.bad },
  RETIRED: { sign: '○', color: theme.muted },
  UNAVAILABLE: { sign: '○', color: theme.muted },
};
