import pkg from '../package.json' with { type: 'json' };

/** Of the server's code: recorded with every attempt and part of every lineage hash. */
export const codeVersion: string = pkg.version;
