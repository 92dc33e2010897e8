/** The fields of a form and what is typed into them: pure, from texts to the input of a mutation. */
export interface Option {
  value: string;
  label: string;
}

export interface Field {
  /** Path inside the input, joined by dots. */
  name: string;
  label: string;
  description: string;
  kind: 'text' | 'secret' | 'integer' | 'number' | 'integers' | 'choice' | 'choices';
  required: boolean;
  /** The text that the form begins with. */
  initial: string;
  minimum?: number | null | undefined;
  maximum?: number | null | undefined;
  options?: readonly Option[];
  /** Sent as true and false. */
  boolean?: boolean;
}

export type Values = Readonly<Record<string, string>>;

/** The input of the mutation, or what is wrong with which field. Fields that are left empty are not sent. */
export function readForm(fields: readonly Field[], values: Values): { input: Record<string, unknown>; errors: Record<string, string> } {
  const input: Record<string, unknown> = {};
  const errors: Record<string, string> = {};
  for (const field of fields) {
    const text = values[field.name] ?? '';
    if (text.trim() === '') {
      if (field.required) errors[field.name] = `${field.label} is missing.`;
      continue;
    }
    const { value, error } = readField(field, text);
    if (error) errors[field.name] = error;
    else setAt(input, field.name.split('.'), value);
  }
  return { input, errors };
}

function readField(field: Field, text: string): { value?: unknown; error?: string } {
  switch (field.kind) {
    case 'integer':
    case 'number':
      return readNumber(field, text.trim());
    case 'integers': {
      const numbers = text.split(',').map((part) => readNumber({ ...field, kind: 'integer' }, part.trim()));
      return numbers.find(({ error }) => error) ?? { value: numbers.map(({ value }) => value) };
    }
    case 'choices':
      return { value: text.split(',').filter(Boolean) };
    case 'choice':
      return { value: field.boolean ? text === 'true' : text };
    default:
      return { value: text };
  }
}

function readNumber({ kind, minimum, maximum }: Field, text: string): { value?: number; error?: string } {
  const value = Number(text);
  if (text === '' || !Number.isFinite(value)) return { error: `“${text}” is no number.` };
  if (kind === 'integer' && !Number.isInteger(value)) return { error: `${text} is not a whole number.` };
  if (minimum != null && value < minimum) return { error: `${text} is below ${minimum}.` };
  if (maximum != null && value > maximum) return { error: `${text} is above ${maximum}.` };
  return { value };
}

function setAt(target: Record<string, unknown>, path: readonly string[], value: unknown): void {
  const [head, ...rest] = path as [string, ...string[]];
  if (rest.length === 0) target[head] = value;
  else {
    target[head] ??= {};
    setAt(target[head] as Record<string, unknown>, rest, value);
  }
}

/** Errors of the server by field: one inside of a field belongs to it, one about no field of the form to the whole (''). */
export function placeErrors(
  fields: readonly Field[],
  errors: readonly { field: readonly string[] | null; message: string }[],
): Record<string, string> {
  const placed: Record<string, string> = {};
  for (const { field: path, message } of errors) {
    const name = (path ?? []).join('.');
    const place = fields.find((field) => name === field.name || name.startsWith(`${field.name}.`))?.name ?? '';
    placed[place] = placed[place] ? `${placed[place]} ${message}` : message;
  }
  return placed;
}

/** What introspection says about a type. */
export interface TypeRef {
  kind: string;
  name: string | null;
  ofType: TypeRef | null;
}

export interface InputType {
  inputFields: { name: string; description: string | null; defaultValue: string | null; type: TypeRef }[];
}

export interface Enums {
  [name: string]: string[];
}

const isList = (type: TypeRef): boolean => type.kind === 'LIST' || (type.ofType !== null && isList(type.ofType));
const nameOfType = (type: TypeRef): string => type.name ?? (type.ofType ? nameOfType(type.ofType) : '');

/**
 * The fields of an input type, as the schema describes them. `about` says what the schema cannot: where choices come from; a field that is
 * null there is left out. Objects that are not named there are left out too.
 */
export function fieldsOf(type: InputType, enums: Enums, about: Record<string, Partial<Field> | null> = {}): Field[] {
  return type.inputFields.flatMap(({ name, description, defaultValue, type: ref }) => {
    const more = about[name];
    if (more === null) return [];
    const typeName = nameOfType(ref);
    const list = isList(ref);
    const kinds: Record<string, Field['kind']> = {
      Int: list ? 'integers' : 'integer',
      SafeInt: 'integer',
      Float: 'number',
      String: 'text',
      ID: list ? 'choices' : 'text',
      Boolean: 'choice',
    };
    const values = typeName === 'Boolean' ? ['true', 'false'] : enums[typeName];
    const kind = more?.kind ?? kinds[typeName] ?? (values ? (list ? 'choices' : 'choice') : undefined);
    if (!kind) return [];
    const [least, most] = rangeOf(description ?? '');
    return [
      {
        name,
        label: labelOf(name),
        description: description ?? '',
        kind,
        required: ref.kind === 'NON_NULL' && defaultValue === null,
        initial: initialOf(defaultValue),
        boolean: typeName === 'Boolean',
        minimum: kind === 'integer' || kind === 'number' ? least : undefined,
        maximum: kind === 'integer' || kind === 'number' ? most : undefined,
        ...(values ? { options: values.map((value) => ({ value, label: value })) } : {}),
        ...more,
      },
    ];
  });
}

/** `-100 to 100` and `1 to 1024` in a description; the server says what is wrong in any case. */
function rangeOf(description: string): [number, number] | [undefined, undefined] {
  const found = /(-?\d[\d.]*) to (-?\d[\d.,]*\d|\d)(?![\d²³])/.exec(description);
  if (!found || /\d to 2[³²]/.test(description)) return [undefined, undefined];
  return [Number(found[1]), Number((found[2] as string).replaceAll(',', ''))];
}

/** A default as the schema prints it: `"AUTO"`, `[1]`, `0.01`. */
const initialOf = (literal: string | null): string =>
  literal === null || literal === 'null' ? '' : literal.replace(/^\[|\]$|"/g, '').replaceAll(' ', '');

/** `datasetVersionId` → `Dataset version` */
export function labelOf(name: string): string {
  const words = name
    .replace(/Ids?$/, '')
    .replace(/([a-z0-9])([A-Z])/g, '$1 $2')
    .toLowerCase();
  return words.charAt(0).toUpperCase() + words.slice(1);
}
