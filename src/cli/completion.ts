/** Completion for shells, made from the commands themselves: whatever `--help` lists can be completed. */
import type { Command } from 'commander';
import { pathOf } from '../../client/command.ts';

interface Word {
  word: string;
  about: string;
  /** Values of an option; null where it takes none, empty where it takes any. */
  values: readonly string[] | null;
}

/** A command, or one below it. */
interface Completed {
  path: string[];
  about: string;
  words: Word[];
}

const completedOf = (command: Command): Completed[] => {
  const help = command.createHelp();
  const [first] = command.registeredArguments;
  const words = [
    ...command.commands.map((child) => ({ word: child.name(), about: help.subcommandDescription(child), values: null })),
    ...(first?.argChoices ?? []).map((word) => ({ word, about: first?.description ?? '', values: null })),
    ...help.visibleOptions(command).flatMap(({ long, description, required, argChoices }) => {
      return long ? [{ word: long, about: description, values: required ? (argChoices ?? []) : null }] : [];
    }),
  ];
  const [, ...path] = pathOf(command);
  return [{ path, about: help.subcommandDescription(command), words }, ...command.commands.flatMap(completedOf)];
};

const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

/** `case <command>:<command below it>:<word before>`, as bash and zsh read it. Those of the longest path come first. */
function cases(of: readonly Completed[], list: (words: readonly Pick<Word, 'word' | 'about'>[]) => string): string {
  const branches = of.toReversed().flatMap(({ path, words }) => {
    const prefix = path.length === 0 ? ':' : `${path[0]}:${path[1] ?? '*'}`;
    const ofValues = words.flatMap(({ word, about, values }) =>
      values === null ? [] : [{ pattern: `${prefix}:${word}`, words: values.map((value) => ({ word: value, about })) }],
    );
    return [...ofValues, { pattern: `${prefix}:*`, words }];
  });
  return branches.map(({ pattern, words }) => `    ${pattern}) found=(${words.length === 0 ? '' : list(words)}) ;;`).join('\n');
}

const scripts = {
  bash: (of: Completed[]): string => `_whetstone() {
  local found=()
  # The words before the one that is completed.
  set -- "\${COMP_WORDS[@]:1:COMP_CWORD-1}"
  case "\${1-}:\${2-}:\${COMP_WORDS[COMP_CWORD-1]}" in
${cases(of, (words) => words.map(({ word }) => quoted(word)).join(' '))}
  esac
  COMPREPLY=($(compgen -W "\${found[*]}" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
# Files where nothing else fits.
complete -o default -F _whetstone whetstone`,

  zsh: (of: Completed[]): string => `#compdef whetstone
_whetstone() {
  local -a found
  local before=\${words[CURRENT-1]}
  # The words before the one that is completed.
  set -- "\${(@)words[2,CURRENT-1]}"
  case "\${1-}:\${2-}:$before" in
${cases(of, (words) => words.map(({ word, about }) => quoted(`${word}:${about}`)).join(' '))}
  esac
  _describe 'whetstone' found || _files
}
compdef _whetstone whetstone`,

  fish: (of: Completed[]): string =>
    of
      .flatMap(({ path, words }) => {
        const isThere = path.map((command) => `__fish_seen_subcommand_from ${command}`).join('; and ') || '__fish_use_subcommand';
        return words.map(({ word, about, values }) => {
          const what = word.startsWith('--') ? `-l ${word.slice(2)}` : `-f -a ${word}`;
          const value = values === null ? '' : values.length === 0 ? ' -r' : ` -x -a ${quoted(values.join(' '))}`;
          return `complete -c whetstone -n '${isThere}' ${what}${value} -d ${quoted(about)}`;
        });
      })
      .join('\n'),
};

export type Shell = keyof typeof scripts;
export const shells = Object.keys(scripts) as Shell[];

export const completionScript = (program: Command, shell: Shell): string => scripts[shell](completedOf(program));
