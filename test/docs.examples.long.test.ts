/**
 * The code in README and docs runs as it stands there: `sh`, `graphql`, `js` and `python`. A block such as `json models.json` is a file of the
 * reader. Blocks of another kind are output, parts of files or drawings.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { expect, test } from 'vitest';
import { yolo } from './support/detection.ts';
import { digit, zipOf } from './support/images.ts';
import { type CodeBlock, codeBlocks } from './support/markdown.ts';
import { freePort } from './support/process.ts';
import { postGraphql, withFolder } from './support/server.ts';
import { succeeded, uploaded } from './support/training.ts';

const root = join(import.meta.dirname, '..');

/** What a block begins with that runs somewhere else. */
const elsewhere: Record<string, string> = {
  'npm start\n': 'each story begins with it',
  'npm run demo': 'demo.long.test.ts; `npm test` is what runs in CI',
};
/** The name of the reader's file that a block is. */
const fileOf = (info: string): string | undefined => /^\w+ (\w+\.\w+)$/.exec(info)?.[1];
const isRun = ({ info, text }: CodeBlock): boolean =>
  (['sh', 'graphql', 'js', 'python'].includes(info) || fileOf(info) !== undefined) &&
  !Object.keys(elsewhere).some((start) => text.startsWith(start));

/** Documents that a reader goes through one after the other, with one server. */
const stories = [
  {
    documents: [
      'docs/tutorial.md',
      'docs/how-to.md',
      'docs/serving.md',
      'docs/tuning.md',
      'docs/automation.md',
      'docs/commands.md',
      'docs/webhooks.md',
      'docs/deployment.md',
    ],
  },
  { documents: ['docs/api.md', 'docs/uploads.md'] },
];

test.each(stories)('the code of $documents runs', async ({ documents }) => {
  await withFolder(async (folder) => {
    await writeReadersFolder(folder);
    const shell = openShell(folder);
    const server = await startServer(folder);
    const ports: Record<string, number> = { '8001': await freePort(), '9000': await freePort() };
    try {
      for (const document of documents) {
        // The addresses in the documents may be taken on this machine.
        const text = readFileSync(join(root, document), 'utf8')
          .replace(/8001|9000/g, (written) => `${ports[written]}`)
          .replaceAll('http://127.0.0.1:8080', server.url);
        for (const block of codeBlocks(text).filter(isRun)) {
          await run(block, shell, server.url, folder).catch((error: Error) => {
            throw new Error(`${document}:${block.line} failed.\n${error.message}`);
          });
        }
      }
    } finally {
      shell.close();
      await server.stop();
    }
  });
});

/** The project's folder, with the data and the files of a reader who begins. */
async function writeReadersFolder(folder: string): Promise<void> {
  for (const name of readdirSync(root)) if (!['.git', 'data', 'demo'].includes(name)) symlinkSync(join(root, name), join(folder, name));
  for (const [label, name] of ['apple', 'banana'].entries()) {
    mkdirSync(join(folder, 'my-images', name), { recursive: true });
    for (let n = 0; n < 10; n += 1) writeFileSync(join(folder, 'my-images', name, `00${n}.png`), await digit(label, n));
  }
}

async function startServer(folder: string): Promise<{ url: string; stop(): Promise<void> }> {
  const env = { ...process.env, WHETSTONE_PORT: '0', WHETSTONE_INFERENCE_PORT: '0', WHETSTONE_WEBHOOK_ADDRESSES: '127.0.0.1' };
  const child = spawn('npm', ['start'], { cwd: folder, env, stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'exit');
  for await (const line of createInterface({ input: child.stdout })) {
    if (!line.includes('"whetstone is ready"')) continue;
    child.stdout.resume();
    const stop = async () => {
      child.kill('SIGTERM');
      await ended;
    };
    return { url: JSON.parse(line).url, stop };
  }
  throw new Error('npm start ended');
}

interface Shell {
  /** What the commands print; throws when one of them fails. */
  run(commands: string): Promise<string>;
  close(): void;
}

/** A terminal in which one block comes after the other: variables and functions stay. */
function openShell(folder: string): Shell {
  const bash = spawn('bash', ['-eu', '-o', 'pipefail'], { cwd: folder, stdio: 'pipe' });
  const lines = createInterface({ input: bash.stdout })[Symbol.asyncIterator]();
  // Programs that a block starts in the background end with the terminal.
  bash.stdin.write("trap 'jobs -p | xargs -r kill' EXIT\n");
  let errors = '';
  bash.stderr.on('data', (data) => {
    errors += data;
  });
  return {
    async run(commands) {
      // Its own input is the shell's: a command that reads would take the next block.
      bash.stdin.write(`{\n${commands}\n} </dev/null\necho; echo "the block has ended"\n`);
      const printed: string[] = [];
      for (;;) {
        const { value, done } = await lines.next();
        if (done) throw new Error(`${printed.join('\n')}\n${errors}`);
        if (value === 'the block has ended') return printed.join('\n').trim();
        printed.push(value);
      }
    },
    close: () => bash.stdin.end(),
  };
}

const interpreters: Record<string, string> = { js: `'${process.execPath}' --input-type=module`, python: 'python3' };

async function run({ info, text }: CodeBlock, shell: Shell, url: string, folder: string): Promise<void> {
  const file = fileOf(info);
  if (file !== undefined) {
    writeFileSync(join(folder, file), text);
  } else if (info === 'graphql') {
    const token = await shell.run('printf %s "$WHETSTONE_TOKEN"');
    const { data, errors } = await postGraphql(url, await filled(text, { url, token }, folder), {}, token);
    expect(errors).toBeUndefined();
    expect(Object.values(data).flatMap((payload) => (payload as { userErrors?: object[] }).userErrors ?? [])).toEqual([]);
  } else {
    const printed = await shell.run(info === 'sh' ? text : `${interpreters[info]} <<'END OF CODE'\n${text}END OF CODE`);
    expect(printed).not.toMatch(/"errors":|"userErrors":\[\{/);
  }
}

/** The document with the ids that a reader would put there. */
async function filled(text: string, api: { url: string; token: string }, folder: string): Promise<string> {
  const query = `{ dataset(name: "fruit") { version { id } } model(name: "fruit") { id versions { nodes { id format } } }
    jobs(first: 2, filter: { kinds: [TRAIN] }) { nodes { id } } }`;
  const { data } = await postGraphql(api.url, query, {}, api.token);
  const version = (format: string) => data.model.versions.nodes.find((v: { format: string }) => v.format === format).id;
  const ids: Record<string, string> = {
    DATASET_VERSION_ID: data.dataset.version.id,
    CHECKPOINT_VERSION_ID: version('CHECKPOINT'),
    ONNX_VERSION_ID: version('ONNX'),
    MODEL_ID: data.model.id,
    JOB_ID: data.jobs.nodes[0].id,
    OTHER_JOB_ID: data.jobs.nodes[1]?.id,
  };
  if (text.includes('"UPLOAD_ID"')) {
    const { uploadId, sha256 } = await uploaded(api, 'mine.onnx', twoClasses(folder));
    Object.assign(ids, { UPLOAD_ID: uploadId, SHA256: sha256 });
  }
  if (text.includes('ZIP_UPLOAD_ID')) {
    const { uploadId, sha256 } = await uploaded(api, 'parts.zip', zipOf(yolo()));
    Object.assign(ids, { ZIP_UPLOAD_ID: uploadId, ZIP_SHA256: sha256 });
  }
  if (text.includes('PARTS_VERSION_ID')) {
    const newest = '{ dataset(name: "parts") { versions(first: 1) { nodes { id job { id } } } } }';
    const [parts] = (await postGraphql(api.url, newest, {}, api.token)).data.dataset.versions.nodes;
    await succeeded(api, parts.job.id);
    ids.PARTS_VERSION_ID = parts.id;
  }
  return text.replace(/"([A-Z0-9_]{3,})"/g, (_, name) => JSON.stringify(ids[name] ?? name));
}

/** An ONNX file for pictures of 224 × 224 that says nothing about itself. */
function twoClasses(folder: string): Buffer {
  const file = join(folder, 'mine.onnx');
  const script = `
import sys, numpy, onnx
from onnx import helper, numpy_helper, TensorProto
image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 224, 224])
scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])
weights = numpy_helper.from_array(numpy.ones((2, 3, 3, 3), numpy.float32), "w")
nodes = [helper.make_node("Conv", ["image", "w"], ["c"]), helper.make_node("GlobalAveragePool", ["c"], ["p"]), helper.make_node("Flatten", ["p"], ["scores"])]
onnx.save(helper.make_model(helper.make_graph(nodes, "g", [image], [scores], [weights]), opset_imports=[helper.make_opsetid("", 18)], ir_version=9), sys.argv[1])`;
  execFileSync(join(root, 'trainer', '.venv', 'bin', 'python'), ['-P', '-c', script, file]);
  return readFileSync(file);
}
