/** SVG as text. The same data gives the same bytes: coordinates have two decimals at most, and nothing depends on the locale. */

/** Text of a name that anybody may have chosen, as content or as an attribute of SVG and HTML. */
export const escapeMarkup = (text: string): string =>
  text
    .toWellFormed()
    // XML has no way to write them.
    .replace(/[^\t\n\r -\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, '\ufffd')
    .replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

export const rounded = (value: number): string => String(Math.round(value * 100) / 100);

type Attributes = Record<string, string | number>;

/** `children` are markup: text among them has to be escaped. */
export function element(name: string, attributes: Attributes, ...children: string[]): string {
  const written = Object.entries(attributes).map(
    ([key, value]) => ` ${key}="${typeof value === 'number' ? rounded(value) : escapeMarkup(value)}"`,
  );
  return children.length === 0 ? `<${name}${written.join('')}/>` : `<${name}${written.join('')}>${children.join('')}</${name}>`;
}

export const textAt = (x: number, y: number, text: string, attributes: Attributes = {}): string =>
  element('text', { x, y, ...attributes }, escapeMarkup(text));

/** About how wide a text is at 12 px; wide characters of Asian scripts count as two. */
export const textWidth = (text: string): number =>
  [...text].reduce((width, character) => width + ((character.codePointAt(0) as number) > 0x2e80 ? 12 : 6.4), 0);

/** The beginning of the text that fits. */
export function cut(text: string, width: number): string {
  if (textWidth(text) <= width) return text;
  let kept = '';
  for (const character of text) {
    if (textWidth(`${kept}${character}…`) > width) break;
    kept += character;
  }
  return `${kept}…`;
}

export interface PlotText {
  title: string;
  /** What there is to see, for those who cannot. */
  description: string;
}

export const plotWidth = 420;

/** A whole plot with its title. `body` is drawn below it. */
export const plot = ({ title, description }: PlotText, height: number, body: string[]): string =>
  element(
    'svg',
    { xmlns: 'http://www.w3.org/2000/svg', class: 'plot', role: 'img', viewBox: `0 0 ${plotWidth} ${rounded(height)}` },
    element('title', {}, escapeMarkup(title)),
    element('desc', {}, escapeMarkup(description)),
    textAt(4, 15, cut(title, plotWidth - 8), { class: 'plot-title' }),
    ...body,
  );
