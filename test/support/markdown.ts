/** What a Markdown file holds, as far as its tests need it. */

export interface CodeBlock {
  /** What stands behind the fence, such as `sh` or `sh server`. */
  info: string;
  text: string;
  /** Of its first line of code. */
  line: number;
}

export function codeBlocks(markdown: string): CodeBlock[] {
  const blocks: CodeBlock[] = [];
  let open: CodeBlock | null = null;
  for (const [n, line] of markdown.split('\n').entries()) {
    const fence = /^```(.*)$/.exec(line);
    if (!fence) {
      if (open) open.text += `${line}\n`;
    } else if (open) {
      blocks.push(open);
      open = null;
    } else {
      open = { info: fence[1] as string, text: '', line: n + 2 };
    }
  }
  return blocks;
}
