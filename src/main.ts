import './loading.ts';
import { program } from './commands.ts';
import { InputError } from './errors.ts';

// Whatever a command writes, and whatever its children write, is its user's only: keys, logs, what was uploaded.
process.umask(0o077);

try {
  await program.parseAsync();
} catch (error) {
  // What a person can mend is one message; a defect keeps its stack.
  const expected = error instanceof InputError || (error instanceof Error && error.constructor === Error);
  console.error(expected ? (error as Error).message : error);
  process.exit(process.exitCode ?? 1);
}
