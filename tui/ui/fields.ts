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
      return {
        value: text
          .split(',')
          .map((part) => part.trim())
          .filter(Boolean),
      };
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
  enumValues?: readonly { name: string }[] | null;
  ofType?: TypeRef | null;
}

export interface InputField {
  name: string;
  description: string | null;
  defaultValue: string | null;
  type: TypeRef;
}

const isList = ({ kind, ofType }: TypeRef): boolean => kind === 'LIST' || (ofType != null && isList(ofType));
const innermost = (type: TypeRef): TypeRef => (type.ofType ? innermost(type.ofType) : type);

/**
 * The fields of an input type, as the schema describes them: those that are required first, and those of `about` in its order. `about` says what the schema cannot: where choices
 * come from. A field that is null there is left out, and so are objects that are not named there.
 */
export function fieldsOf(inputFields: readonly InputField[], about: Record<string, Partial<Field> | null> = {}): Field[] {
  const fields = inputFields.flatMap(({ name, description, defaultValue, type }): Field[] => {
    const more = about[name];
    if (more === null) return [];
    const { name: typeName, enumValues } = innermost(type);
    const list = isList(type);
    const kinds: Record<string, Field['kind']> = {
      Int: list ? 'integers' : 'integer',
      SafeInt: 'integer',
      Float: 'number',
      String: list ? 'choices' : 'text',
      ID: list ? 'choices' : 'text',
      Boolean: 'choice',
    };
    const values = typeName === 'Boolean' ? ['true', 'false'] : enumValues?.map((value) => value.name);
    const kind = more?.kind ?? (values ? (list ? 'choices' : 'choice') : kinds[typeName ?? '']);
    if (!kind) return [];
    const [minimum, maximum] = kind === 'integer' || kind === 'number' ? rangeOf(description ?? '') : [];
    const field: Field = {
      ...{ name, label: labelOf(name), description: description ?? '', kind, minimum, maximum },
      required: type.kind === 'NON_NULL' && defaultValue === null,
      initial: initialOf(defaultValue),
      boolean: typeName === 'Boolean',
      ...(values ? { options: values.map((value) => ({ value, label: value })) } : {}),
      ...more,
    };
    return [field];
  });
  const place = ({ name, required }: Field) => {
    const known = Object.keys(about).indexOf(name);
    return (required ? 0 : 1000) + (known === -1 ? 100 : known);
  };
  return fields.sort((a, b) => place(a) - place(b));
}

/** `-100 to 100` and `1 to 1024` in a description; the server says what is wrong in any case. */
function rangeOf(description: string): [number, number] | [] {
  const found = /(-?\d[\d.]*) to (-?\d[\d.,]*\d|\d)(?![\d²³])/.exec(description);
  if (!found || /\d to 2[³²]/.test(description)) return [];
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
