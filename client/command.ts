/** The command line of every program of Whetstone: a wrong one ends with exit code 2 and says on standard error what would be right. */
import { Argument, Command, type HelpContext, InvalidArgumentError } from 'commander';
import { addressForm, isAddress } from './address.ts';

export class WhetstoneCommand extends Command {
  constructor(name?: string) {
    super(name);
    this.helpOption('-h, --help', 'print this').helpCommand(false);
  }

  override createCommand(name?: string): Command {
    return new WhetstoneCommand(name);
  }

  override error(message: string, options = {}): never {
    const name = pathOf(this).join(' ');
    const usage = `Usage: ${this.createHelp().commandUsage(this)}\n\`${name} --help\` says more.`;
    return super.error(`${message}\n\n${usage}`, { ...options, exitCode: 2 });
  }

  /** Commander also comes here where a command is missing, and would then end with 1. */
  override help(context?: unknown): never {
    if (isError(context)) process.exitCode = 2;
    return super.help(context as HelpContext);
  }

  /** The help of an unknown command would be that of all: commander looks for `--help` first. */
  override outputHelp(context?: unknown): void {
    const [given = '-'] = this.args;
    if (this.commands.length > 0 && !isError(context) && !given.startsWith('-')) this.parse([given], { from: 'user' });
    super.outputHelp(context as HelpContext);
  }
}

const isError = (context: unknown): boolean => (context as HelpContext | undefined)?.error === true;

/** The names of a command and of those above it. */
export const pathOf = (command: Command): string[] => [...(command.parent ? pathOf(command.parent) : []), command.name()];

/** Adds `help [command...]`, in place of commander's own, which answers an unknown name with the help of all. */
export function addHelpCommand(program: Command): void {
  const names = new Argument('[command...]', 'the command; all of them without');
  // Only for the completion: an unknown one is answered as everywhere, with the nearest.
  Object.defineProperty(names, 'argChoices', { get: () => program.commands.map((command) => command.name()) });
  program
    .command('help')
    .description('print the help of a command')
    .addArgument(names)
    .action((path: string[]) => program.parseAsync([...path, '--help'], { from: 'user' }).then(() => {}));
}

/** Of an option that names a server. */
export function parseAddress(given: string): string {
  if (!isAddress(given)) throw new InvalidArgumentError(`It must be ${addressForm}.`);
  return given;
}
