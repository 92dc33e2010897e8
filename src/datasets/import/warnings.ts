/** The warnings about a dataset that an import accepts: what was left out or corrected, and what looks like a mistake. */
import { folderOf, type ImportChild, type Split } from './layout.ts';
import { duplicatesAcrossSplits } from './outputs.ts';
import { type LeftOut, plural, printable, someOf } from './problems.ts';
import type { Zip } from './zip.ts';

/** Folders are what matters most: of class folders their names are the classes. */
export function warnOfNames({ warn, spec }: ImportChild, { encoding, unmarked }: Zip): void {
  if (unmarked.length === 0 || spec.nameEncoding !== null) return;
  const folders = [...new Set(unmarked.map(folderOf))].filter((name) => /[^\0-\x7f]/.test(name));
  if (folders.length === 0 && encoding === 'UTF_8') return;
  warn(
    'NAMES_NOT_MARKED',
    `${plural(unmarked.length, 'name')} in the zip ${unmarked.length === 1 ? 'is' : 'are'} not ASCII and not marked as UTF-8. Read as ${encoding}: ` +
      `${someOf(folders.length > 0 ? folders : unmarked)}. If they look wrong, import again and name the encoding, for example \`nameEncoding: SHIFT_JIS\`.`,
  );
}

export function warnOfIgnored({ warn }: ImportChild, { systemFiles, toolFolders }: Zip, documents: string[]): void {
  if (toolFolders.size > 0) {
    const named = [...toolFolders].map(([folder, count]) => `${folder} (${plural(count, 'file')})`);
    warn(
      'FOLDERS_IGNORED',
      `${plural(named.length, 'hidden folder')} or ${named.length === 1 ? 'folder' : 'folders'} of tools left out: ${someOf(named)}.`,
    );
  }
  const ignored = [...documents, ...systemFiles];
  if (ignored.length > 0)
    warn(
      'FILES_IGNORED',
      `${plural(ignored.length, 'file')} that ${ignored.length === 1 ? 'is no image was' : 'are no images were'} ignored: ${someOf(ignored)}.`,
    );
}

const duplicatesNamed = 5;

export function warnOfDuplicates({ warn }: ImportChild, items: readonly { split: Split; path: string; sha256: string }[]): void {
  const pairs = [...duplicatesAcrossSplits(items)];
  if (pairs.length === 0) return;
  const named = pairs.slice(0, duplicatesNamed).map(([a, b]) => `${printable(a.path)} (${a.split}) = ${printable(b.path)} (${b.split})`);
  const more = pairs.length > named.length ? ', …' : '';
  warn(
    'DUPLICATES_ACROSS_SPLITS',
    `${plural(pairs.length, 'image is', 'images are')} in more than one split, which flatters the metrics: ${named.join(', ')}${more}.`,
  );
}

/** Of a classification dataset: labels that contradict each other, and classes that no validation image judges. */
export function warnOfLabels(
  { warn }: ImportChild,
  items: readonly { split: Split; path: string; sha256: string; label: number | null }[],
  classes: readonly string[],
): void {
  const first = new Map<string, { path: string; label: number | null }>();
  const contradicted: string[] = [];
  for (const { sha256, path, label } of items) {
    const other = first.get(sha256);
    if (other && other.label !== label) contradicted.push(`${printable(other.path)} = ${printable(path)}`);
    first.set(sha256, other ?? { path, label });
  }
  if (contradicted.length > 0)
    warn(
      'SAME_IMAGE_IN_CLASSES',
      `${plural(contradicted.length, 'image is', 'images are')} in more than one class: ${contradicted.slice(0, duplicatesNamed).join(', ')}` +
        `${contradicted.length > duplicatesNamed ? ', …' : ''}. Remove them from the wrong classes.`,
    );
  const judged = new Set(items.flatMap(({ split, label }) => (split === 'val' ? [label] : [])));
  const unjudged = classes.filter((_, label) => !judged.has(label));
  if (judged.size > 0 && unjudged.length > 0)
    warn(
      'CLASSES_WITHOUT_VAL',
      `${plural(unjudged.length, 'class has', 'classes have')} no images in val, so no accuracy says how well ` +
        `${unjudged.length === 1 ? 'it is' : 'they are'} recognized: ${someOf(unjudged)}. Add images: each class needs at least 2.`,
    );
}

export function warnOfXmp({ warn }: ImportChild, turned: string[]): void {
  if (turned.length > 0)
    warn(
      'XMP_ORIENTATION_IGNORED',
      `${plural(turned.length, 'image')} that only XMP data turn upright ${turned.length === 1 ? 'is' : 'are'} used as stored, perhaps lying on the side: ` +
        `${someOf(turned)}. Write the orientation into EXIF, or turn the pixels, for example with \`magick mogrify -auto-orient\`.`,
    );
}

export function warnOfBoxes(
  { warn }: ImportChild,
  { clipped, duplicates, withoutArea, empty }: Record<'clipped' | 'duplicates' | 'withoutArea' | 'empty', number>,
): void {
  if (clipped > 0)
    warn(
      'BOXES_CLIPPED',
      `${plural(clipped, 'box', 'boxes')} reached out of ${clipped === 1 ? 'its image' : 'their images'} and ${clipped === 1 ? 'was' : 'were'} cut off there.`,
    );
  if (duplicates > 0)
    warn(
      'BOXES_TWICE',
      `${plural(duplicates, 'box', 'boxes')} stood in an image before, with the same class and place, and ${duplicates === 1 ? 'was' : 'were'} left out.`,
    );
  if (withoutArea > 0)
    warn(
      'BOXES_WITHOUT_AREA',
      `${plural(withoutArea, 'box', 'boxes')} without area inside the image ${withoutArea === 1 ? 'was' : 'were'} left out.`,
    );
  if (empty > 0)
    warn(
      'IMAGES_WITHOUT_BOXES',
      `${plural(empty, 'image')} without boxes: ${empty === 1 ? 'it is' : 'they are'} learned as showing nothing.`,
    );
}

export function warnOfLeftOut({ warn }: ImportChild, leftOut: LeftOut): void {
  if (leftOut.size === 0) return;
  const named = [...leftOut].map(([name, reason]) => `${name} (${reason})`);
  warn('IMAGES_LEFT_OUT', `${plural(leftOut.size, 'image')} left out: ${someOf(named)}.`);
}

export function warnOfConverted({ warn }: ImportChild, names: string[]): void {
  if (names.length === 0) return;
  warn(
    'IMAGES_CONVERTED',
    `${plural(names.length, 'image')} that not every program reads alike (TIFF, BMP, CMYK, 16 bits, odd metadata) ` +
      `${names.length === 1 ? 'is' : 'are'} kept as PNG: ${someOf(names)}.`,
  );
}
