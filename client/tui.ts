/** The command line of the terminal UI: `whetstone` describes it in its help and completion, the program itself parses it. */
import { Argument, type Command } from 'commander';
import { parseAddress } from './command.ts';

export const screenNames = [
  'overview',
  'jobs',
  'datasets',
  'models',
  'benchmarks',
  'reports',
  'deployments',
  'events',
  'users',
  'compare',
  'keys',
  'alerts',
  'webhooks',
  'audit',
  'storage',
  'job',
  'dataset',
  'pictures',
  'model',
  'measurements',
  'report',
  'deployment',
  'model-history',
  'deployment-history',
  'webhook',
  'user',
  'password',
  'infer',
  'upload-dataset',
  'upload-model',
  'train',
  'evaluate',
  'convert',
  'compress',
  'benchmark',
  'deploy',
] as const;
export type ScreenName = (typeof screenNames)[number];

export interface TuiOptions {
  url?: string;
  json?: boolean;
}

export const describeTui = (command: Command): Command =>
  command
    .description('open the terminal UI, or print what one of its screens shows')
    .addArgument(new Argument('[screen]', 'the screen that is shown first').choices(screenNames).default('overview'))
    .argument('[id...]', 'what the screen is for, such as the id of a job')
    .option(
      '--url <url>',
      'the server; without it WHETSTONE_URL, WHETSTONE_PORT on this machine, the one of the last time, or http://127.0.0.1:8080',
      parseAddress,
    )
    .option('--json', 'print what the screen shows as JSON, with the login of the terminal UI or WHETSTONE_TOKEN');
