import type { DocumentBlock, ReportDocument, Table } from './document.ts';

/** Names come from whoever made a model or a dataset: none is markup. */
const plain = (text: string): string => text.replace(/[\\`*_<>[\]|#~&]/g, '\\$&').replace(/\s/g, ' ');

function table({ caption, head, rows }: Table): string {
  const line = (cells: string[]) => `| ${cells.map(plain).join(' | ')} |`;
  return [plain(caption), '', line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

/** Empty where there is nothing that Markdown shows. */
function blockText(block: DocumentBlock): string {
  if ('text' in block) return plain(block.text);
  if ('list' in block) return block.list.map((item) => `- ${plain(item)}`).join('\n');
  if ('steps' in block) return block.steps.map((step, i) => `${i + 1}. ${plain(step)}`).join('\n');
  if ('pictures' in block) return block.pictures.map(({ name, caption }) => `- ${plain(name)}: ${plain(caption)}`).join('\n');
  return 'table' in block ? table(block.table) : '';
}

export function toMarkdown({ title, lead, sections, footer }: ReportDocument): string {
  const textOf = (blocks: DocumentBlock[]) => blocks.map(blockText).filter((text) => text !== '');
  const parts = [
    `# ${plain(title)}`,
    ...textOf(lead),
    ...sections.flatMap(({ heading, blocks }) => {
      const shown = textOf(blocks);
      return shown.length === 0 ? [] : [`## ${plain(heading)}`, ...shown];
    }),
    ...footer.map(plain),
  ];
  return `${parts.join('\n\n')}\n`;
}
