// Fails on sentences of README, docs, schema and comments that are too long, or that a stranger has to read twice. It also fails on links that
// lead nowhere, and on requirements without a test.
// CHANGELOG.md is history and stays as it is.
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

const root = join(import.meta.dirname, '..');
const wordsMax = 30;

/** What reads like a riddle, and what to write. */
const phrases: [RegExp, string][] = [
  [/\b(is|are|was|were|be) (told|said)\b/i, 'say who reports what: "the message names the file"'],
  [/\b(go|goes|going|went|gone) on\b/i, 'continue, resume, keep serving'],
  [/\bdo(es)? what (it|they) says?\b/i, 'what it does'],
  [/\b(is|are) not well\b/i, 'what is wrong'],
  [/\b(came|comes?) of it\b/i, 'fails, results in'],
  [/\b(is|are) given up\b/i, 'expires, is discarded'],
  [/\bin one go\b/i, 'without interruption, at once'],
  [/\bat the cap\b/i, 'when the limit is reached'],
  [/\bnames? nothing\b/i, 'unknown'],
  [/\banew\b/i, 'again'],
  [/\bat the door\b/i, 'when the request arrives'],
  [/\brelied upon\b/i, 'valid'],
  [/\bunder way\b/i, 'running'],
  [/\bblamed for\b/i, 'what becomes FAILED'],
  [/\bin shares of\b/i, 'as fractions of'],
  [/\bwho \w+s\b[^?]*\bis (given|let|refused)\b/i, 'a user who …, clients that …'],
  [/^Who [^?]*$/, 'name the person: users, clients, administrators'],
];

/** The sentences of a document, which end with what `ends` finds, each with the line at which its paragraph begins; code, comments and generated tables are left out. */
function sentencesOf(markdown: string, ends: RegExp): { line: number; text: string }[] {
  const prose = markdown
    .replace(/^```[\s\S]*?^```$/gm, blank)
    .replace(/<!-- generated[\s\S]*?<!-- end -->/g, blank)
    .replace(/<!--[\s\S]*?-->/g, blank)
    .replace(/`[^`]*`/g, (code) => `code${'\n'.repeat(code.split('\n').length - 1)}`)
    .replace(/!?\[([^\]]*)\]\([^)]*\)/g, '$1');
  const paragraphs: { line: number; text: string }[] = [];
  let open = false;
  for (const [n, line] of prose.split('\n').entries()) {
    const starts = /^\s*(([-*+]|\d+\.|#+|>)\s|\|)/.test(line);
    if (line.trim() === '') open = false;
    else if (line.trim().startsWith('|')) {
      open = false;
      paragraphs.push(...line.split('|').map((text) => ({ line: n + 1, text })));
    } else if (open && !starts) (paragraphs.at(-1) as { text: string }).text += ` ${line.trim()}`;
    else {
      open = !line.startsWith('#');
      paragraphs.push({ line: n + 1, text: line.replace(/^\s*([-*+]|\d+\.|#+|>)\s+/, '').trim() });
    }
  }
  return paragraphs.flatMap(({ line, text }) => text.split(ends).map((sentence) => ({ line, text: sentence.trim() })));
}

/** The comments of a program, or the descriptions of the schema, on their lines. What is indented is a table or a formula. */
function commentsOf(name: string, text: string): string {
  const comment = /\.(py|graphql)$/.test(name) ? /"""([\s\S]*?)"""|^\s*#(.*)$/gm : /\/\*\*([\s\S]*?)\*\/|^\s*\/\/(.*)$/gm;
  let prose = '';
  let end = 0;
  for (const { index, 0: whole, 1: block, 2: line } of text.matchAll(comment)) {
    prose += blank(text.slice(end, index)) + (whole.startsWith('\n') ? '\n' : '');
    prose += (block ?? line ?? '').replace(/^ *\* ?/gm, '').replace(/^ {3,}.*$/gm, '');
    end = index + whole.length;
  }
  return prose;
}

const blank = (text: string): string => '\n'.repeat(text.split('\n').length - 1);

// Not a list that git makes: a release has no git.
const ignored = readFileSync(join(root, '.gitignore'), 'utf8')
  .trim()
  .split('\n')
  .map((line) => (line.startsWith('/') ? line.slice(1) : `**/${line}`).replace(/\/$/, ''));
const matching = (...patterns: string[]): string[] => globSync(patterns, { cwd: root, exclude: ignored }).sort();
const documents = matching('README.md', 'CONTRIBUTING.md', 'docs/**/*.md');
const programs = matching('**/*.{ts,tsx,mjs,py,graphql}');

const problems = [...documents, ...programs].flatMap((name) => {
  const text = readFileSync(join(root, name), 'utf8');
  const sentences = documents.includes(name)
    ? sentencesOf(text, /(?<=[.!?][)*"”]*)\s+/)
    : sentencesOf(commentsOf(name, text), /(?<=[.!?:;][)*"”]*)\s+/);
  return sentences.flatMap(({ line, text }) => {
    const words = text.split(/\s+/).filter((word) => /[\p{L}\p{N}]/u.test(word)).length;
    const found = phrases.filter(([pattern]) => pattern.test(text)).map(([pattern, better]) => `${pattern}: write ${better}`);
    if (words > wordsMax) found.push(`${words} words, at most ${wordsMax}`);
    return found.map((problem) => `${name}:${line}: ${problem}\n    ${text}`);
  });
});
for (const name of documents) {
  for (const [, target, anchor] of readFileSync(join(root, name), 'utf8').matchAll(/\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)/g)) {
    const path = target ? join(root, dirname(name), target) : join(root, name);
    const exists = existsSync(path) && (!anchor || anchorsOf(readFileSync(path, 'utf8')).includes(anchor));
    if (!exists) problems.push(`${name}: the link to ${target}${anchor ? `#${anchor}` : ''} leads nowhere`);
  }
}

for (const line of readFileSync(join(root, 'docs', 'requirements.md'), 'utf8').split('\n')) {
  const [, requirement, proofs = ''] = /^\| (?!Requirement)([^|]+) \| (.*) \|$/.exec(line) ?? [];
  if (!requirement) continue;
  const tests = [...proofs.matchAll(/`([\w./-]+)`: `([^`]+)`/g)].map(([, file = '', name = '']) => ({ file, name }));
  const gone = tests.filter(({ file, name }) => !existsSync(join(root, file)) || !readFileSync(join(root, file), 'utf8').includes(name));
  if (tests.length === 0) problems.push(`docs/requirements.md: no test proves “${requirement}”`);
  for (const { file, name } of gone) problems.push(`docs/requirements.md: ${file} has no test “${name}”`);
}

/** What headings are called in links. */
function anchorsOf(markdown: string): string[] {
  return [...markdown.matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
    (heading as string)
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, '')
      .trim()
      .replace(/\s/g, '-'),
  );
}

if (problems.length > 0) {
  console.error(`${problems.join('\n')}\n${problems.length} to mend.`);
  process.exit(1);
}
