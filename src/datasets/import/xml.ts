/** XML documents as trees: elements with their texts and attributes, without a DTD, whose entities can grow without end. */
import { printable } from './problems.ts';

export interface Element {
  name: string;
  /** As they are written; see `attributeOf`. */
  attributes: string;
  /** Of its own, without those of its children. */
  text: string;
  children: Element[];
}

/** The text is not the XML that was expected; the message is a reason. */
export class BadXml extends Error {}

const depthMax = 50;
/** Of a tree: of a whole document, or of each child of its root that `take` gets. */
const elementsMax = 100_000;

/** Comments, instructions, CDATA, a DOCTYPE, then tags, then text. What a tag may have beside quoted texts is limited, as the stack of the matcher is. */
const tokens =
  /<!--[\s\S]*?-->|<\?[\s\S]*?\?>|<!\[CDATA\[([\s\S]*?)\]\]>|(<!(?!--|\[CDATA)[^>]*>)|<(\/?)([^\s<>/!?]+)((?:[^<>"']|"[^"]*"|'[^']*'){0,10000}?)(\/?)>|([^<]+)/y;

const entities: Record<string, string> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" };

/**
 * The document's element. With `take` its children go there one by one and are not kept, so that a document can be larger than a tree of it.
 * Throws a BadXml.
 */
export function parseXml(text: string, take?: (child: Element) => void): Element {
  const document: Element = { name: '', attributes: '', text: '', children: [] };
  const open: Element[] = [document];
  let count = 0;
  const end = (element: Element): void => {
    if (!take || open.length !== 2) return;
    open[1]?.children.pop();
    count = 0;
    take(element);
  };
  for (tokens.lastIndex = 0; tokens.lastIndex < text.length; ) {
    const at = tokens.lastIndex;
    const token = tokens.exec(text);
    if (!token) throw new BadXml(`is not XML at character ${at}`);
    const [, cdata, declaration, closing, name, attributes = '', empty, plain] = token;
    const current = open.at(-1) as Element;
    if (declaration?.includes('[')) throw new BadXml('has a DTD: remove it');
    if (cdata !== undefined) current.text += cdata;
    else if (plain !== undefined) current.text += decoded(plain);
    else if (closing && name !== undefined) {
      if (current.name !== name || open.length === 1) throw new BadXml(`is not XML: </${name}> closes nothing`);
      open.pop();
      end(current);
    } else if (name !== undefined) {
      const element = { name, attributes, text: '', children: [] };
      current.children.push(element);
      count += 1;
      if (empty) end(element);
      else open.push(element);
      if (open.length - 1 > depthMax) throw new BadXml(`nests more than ${depthMax} elements: make it flatter`);
      if (count > elementsMax) {
        const tree = (open[take ? 2 : 1] ?? element).name;
        throw new BadXml(
          `has more than ${elementsMax.toLocaleString('en-US')} elements in one <${printable(tree)}>: remove those that describe no boxes`,
        );
      }
    }
  }
  const [root] = document.children;
  if (open.length > 1) throw new BadXml(`is not whole: <${open.at(-1)?.name}> is open at its end`);
  if (!root || document.children.length > 1) throw new BadXml('is not XML with one element that holds everything');
  return root;
}

const decoded = (text: string): string => text.replace(/&(#x?[\da-f]+|\w+);/gi, (whole, entity: string) => characterOf(entity) ?? whole);

function characterOf(entity: string): string | undefined {
  if (!entity.startsWith('#')) return Object.hasOwn(entities, entity) ? entities[entity] : undefined;
  const code = /^#x/i.test(entity) ? Number.parseInt(entity.slice(2), 16) : Number.parseInt(entity.slice(1), 10);
  // Half of a character of UTF-16 is none.
  const isHalf = code >= 0xd800 && code <= 0xdfff;
  return code > 0 && code <= 0x10ffff && !isHalf ? String.fromCodePoint(code) : undefined;
}

/** The name of the root element, from the beginning of a document; empty when there is none. */
export function rootNameOf(beginning: string): string {
  for (tokens.lastIndex = 0; tokens.lastIndex < beginning.length; ) {
    const token = tokens.exec(beginning);
    if (!token) return '';
    if (token[4] !== undefined) return token[4];
  }
  return '';
}

export const child = ({ children }: Element, name: string): Element | undefined => children.find((element) => element.name === name);

export const textOf = (element: Element | undefined, name: string): string | undefined => {
  const found = element && child(element, name)?.text.trim();
  return found === '' ? undefined : found;
};

export function attributeOf({ attributes }: Element, name: string): string | undefined {
  const found = attributes.matchAll(/(?<=^|\s)([^\s=]+)\s*=\s*(?:"([^"]*)"|'([^']*)')/g).find(([, key]) => key === name);
  return found && decoded(found[2] ?? found[3] ?? '');
}

/** The number that `what` must have. Throws a BadXml. */
export function finiteNumber(text: string | undefined, what: string): number {
  if (text === undefined) throw new BadXml(`has no ${what}`);
  const number = numberOf(text);
  if (!Number.isFinite(number)) throw new BadXml(`has ${what} "${printable(text)}", which is not a number`);
  return number;
}

/** NaN where there is none. */
export const numberOf = (text: string | undefined): number =>
  text !== undefined && /^\s*[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*$/i.test(text) ? Number(text) : Number.NaN;
