/** Completion for shells, made from the commands themselves: whatever `--help` lists can be completed. */
import type { Command } from 'commander';

interface Word {
  word: string;
  about: string;
  /** Values of an option; null where it takes none, empty where it takes any. */
  values: readonly string[] | null;
}

interface Completed {
  command: string;
  about: string;
  words: Word[];
}

const completedOf = (program: Command): Completed[] =>
  program.commands.map((command) => {
    const help = command.createHelp();
    const children = help.visibleCommands(command).filter((child) => child.name() !== 'help');
    const [first] = command.registeredArguments;
    return {
      command: command.name(),
      about: help.subcommandDescription(command),
      words: [
        ...children.map((child) => ({ word: child.name(), about: help.subcommandDescription(child), values: null })),
        ...(first?.argChoices ?? []).map((word) => ({ word, about: first?.description ?? '', values: null })),
        ...help.visibleOptions(command).flatMap(({ long, description, required, argChoices }) => {
          return long ? [{ word: long, about: description, values: required ? (argChoices ?? []) : null }] : [];
        }),
      ],
    };
  });

const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

/** `case <number of the word>:<command>:<word before>`, as bash and zsh read it. */
function cases(of: readonly Completed[], list: (words: readonly Pick<Word, 'word' | 'about'>[]) => string): string {
  const branches = [
    { pattern: '1:*', words: of.map(({ command, about }) => ({ word: command, about })) },
    ...of.flatMap(({ command, words }) => [
      ...words.flatMap(({ word, about, values }) =>
        values === null ? [] : [{ pattern: `*:${command}:${word}`, words: values.map((value) => ({ word: value, about })) }],
      ),
      { pattern: `*:${command}:*`, words },
    ]),
  ];
  return branches.map(({ pattern, words }) => `    ${pattern}) found=(${words.length === 0 ? '' : list(words)}) ;;`).join('\n');
}

const scripts = {
  bash: (of: Completed[]): string => `_whetstone() {
  local found=()
  case "$COMP_CWORD:\${COMP_WORDS[1]}:\${COMP_WORDS[COMP_CWORD-1]}" in
${cases(of, (words) => words.map(({ word }) => quoted(word)).join(' '))}
  esac
  COMPREPLY=($(compgen -W "\${found[*]}" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
# Files where nothing else fits.
complete -o default -F _whetstone whetstone`,

  zsh: (of: Completed[]): string => `#compdef whetstone
_whetstone() {
  local -a found
  case "$((CURRENT - 1)):\${words[2]}:\${words[CURRENT-1]}" in
${cases(of, (words) => words.map(({ word, about }) => quoted(`${word}:${about}`)).join(' '))}
  esac
  _describe 'whetstone' found || _files
}
compdef _whetstone whetstone`,

  fish: (of: Completed[]): string =>
    of
      .flatMap(({ command, about, words }) => [
        `complete -c whetstone -n __fish_use_subcommand -f -a ${command} -d ${quoted(about)}`,
        ...words.map(({ word, about: says, values }) => {
          const what = word.startsWith('--') ? `-l ${word.slice(2)}` : `-f -a ${word}`;
          const value = values === null ? '' : values.length === 0 ? ' -r' : ` -x -a ${quoted(values.join(' '))}`;
          return `complete -c whetstone -n '__fish_seen_subcommand_from ${command}' ${what}${value} -d ${quoted(says)}`;
        }),
      ])
      .join('\n'),
};

export type Shell = keyof typeof scripts;
export const shells = Object.keys(scripts) as Shell[];

export const completionScript = (program: Command, shell: Shell): string => scripts[shell](completedOf(program));
