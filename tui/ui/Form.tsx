/** A form: one field a line, the description of the one under the cursor below, what is wrong at its field. */
import { Box, Text } from 'ink';
import { useState } from 'react';
import type { FieldError } from '../actions.ts';
import { type Field, placeErrors, readForm, type Values } from './fields.ts';
import { padTo, printable, wrap } from './format.ts';
import { type KeyRow, level, useKeys } from './keys.tsx';
import { theme } from './theme.ts';

interface Props {
  title: string;
  fields: readonly Field[];
  submitLabel: string;
  width: number;
  height: number;
  /** Called with the values whenever one changes, for forms whose fields depend on each other. */
  onChange?: (values: Values) => void;
  /** What the server refuses. */
  submit(input: Record<string, unknown>): Promise<readonly FieldError[]>;
  onCancel?: () => void;
}

export function Form({ title, fields, submitLabel, width, height, onChange, submit, onCancel }: Props) {
  const [values, setValues] = useState<Values>({});
  const [cursor, setCursor] = useState(0);
  const [caret, setCaret] = useState<number | null>(null);
  const [errors, setErrors] = useState<Record<string, string>>({});
  const [busy, setBusy] = useState(false);
  const current = Object.fromEntries(fields.map((field) => [field.name, values[field.name] ?? field.initial]));
  const field = fields[Math.min(cursor, fields.length - 1)] as Field;
  const text = current[field.name] ?? '';
  const at = Math.min(caret ?? text.length, text.length);

  const change = (next: string, nextCaret: number | null = null) => {
    const changed = { ...values, [field.name]: next };
    setValues(changed);
    setCaret(nextCaret);
    setErrors(({ [field.name]: _gone, ...others }) => others);
    onChange?.({ ...current, ...changed });
  };
  const go = (to: number) => {
    setCursor((to + fields.length) % fields.length);
    setCaret(null);
  };
  const send = async () => {
    if (busy) return;
    const { input, errors: wrong } = readForm(fields, current);
    setErrors(wrong);
    if (Object.keys(wrong).length > 0) return go(fields.findIndex(({ name }) => name in wrong));
    setBusy(true);
    const placed = placeErrors(fields, await submit(input));
    setBusy(false);
    setErrors(placed);
    const first = fields.findIndex(({ name }) => name in placed);
    if (first !== -1) go(first);
  };
  const choose = (step: number) => {
    const options = field.options ?? [];
    const choices = field.required ? options.map(({ value }) => value) : ['', ...options.map(({ value }) => value)];
    const index = choices.indexOf(text);
    change(choices[(index + step + choices.length) % choices.length] ?? '');
  };
  const isChoice = field.kind === 'choice';
  const isLast = cursor === fields.length - 1;
  const rows: KeyRow[] = [
    { keys: 'ctrl-s', label: submitLabel, hint: true, run: () => void send() },
    { keys: 'enter', label: isLast ? submitLabel : 'next field', hint: !isLast, run: () => (isLast ? void send() : go(cursor + 1)) },
    { keys: ['tab', 'down'], label: 'next field', run: () => go(cursor + 1) },
    { keys: ['shift-tab', 'up'], label: 'previous field', run: () => go(cursor - 1) },
    ...(onCancel ? [{ keys: 'esc', label: 'leave the form', hint: true, run: onCancel }] : []),
    ...(isChoice
      ? [
          { keys: ['right', 'space'], label: 'next choice', hint: true, run: () => choose(1) },
          { keys: 'left', label: 'previous choice', run: () => choose(-1) },
        ]
      : [
          { keys: 'left', label: 'move in the text', run: () => setCaret(Math.max(0, at - 1)) },
          { keys: 'right', label: 'move in the text', run: () => setCaret(Math.min(text.length, at + 1)) },
          { keys: 'backspace', label: 'delete', run: () => at > 0 && change(text.slice(0, at - 1) + text.slice(at), at - 1) },
          { keys: 'ctrl-u', label: 'empty the field', run: () => change('', 0) },
        ]),
  ];
  useKeys(rows, {
    level: level.part,
    modal: true,
    text: (typed) => {
      if (!isChoice) return change(text.slice(0, at) + typed + text.slice(at), at + typed.length);
      const match = field.options?.find(({ label }) => label.toLowerCase().startsWith(typed.toLowerCase()));
      if (match) change(match.value);
    },
  });

  const labelWidth = Math.min(24, Math.max(8, Math.floor(width * 0.4)), Math.max(...fields.map(({ label }) => label.length)) + 2);
  const valueWidth = Math.max(8, width - labelWidth - 4);
  const described = describe(field, errors[field.name] ?? '', width - 2);
  // What is wrong is shown whole, where the screen has room for it and a field.
  const wrong = described.filter(({ bad }) => bad).length;
  const about = described.slice(0, Math.max(3, Math.min(wrong, height - 4)));
  const wrongAtAll = errors[''] ? wrap(errors[''], width - 2) : [];
  const room = Math.max(1, height - 2 - wrongAtAll.length - about.length);
  const first = Math.max(0, Math.min(cursor - Math.floor(room / 2), fields.length - room));
  return (
    <Box flexDirection="column" width={width} height={height}>
      <Text bold wrap="truncate">
        {` ${printable(title)}`}
        <Text color={theme.muted}>{busy ? '  sending …' : fields.length > room ? `  ${cursor + 1} of ${fields.length}` : ''}</Text>
      </Text>
      {fields.slice(first, first + room).map((shown, i) => {
        const isCursor = first + i === cursor;
        const value = current[shown.name] ?? '';
        return (
          <Text key={shown.name} wrap="truncate">
            <Text
              color={isCursor ? theme.accent : undefined}
              bold={isCursor}
            >{`${isCursor ? '›' : ' '} ${padTo(shown.label, labelWidth)}`}</Text>
            {isCursor && !isChoice ? (
              <Typed text={masked(shown, value)} at={at} width={valueWidth} />
            ) : (
              <Text inverse={isCursor}>
                {padTo(displayed(shown, value), Math.min(valueWidth, Math.max(12, displayed(shown, value).length)))}
              </Text>
            )}
            {errors[shown.name] ? <Text color={theme.bad}>{' ✗'}</Text> : ''}
          </Text>
        );
      })}
      <Text> </Text>
      {wrongAtAll.map((line) => (
        <Text key={line} color={theme.bad}>{` ${line}`}</Text>
      ))}
      {about.map(({ line, bad }) => (
        <Text key={line} color={bad ? theme.bad : theme.muted} wrap="truncate">{` ${line}`}</Text>
      ))}
    </Box>
  );
}

const masked = ({ kind }: Field, value: string): string => (kind === 'secret' ? '•'.repeat(value.length) : value);

const displayed = (field: Field, value: string): string => {
  if (field.kind !== 'choice') return masked(field, value);
  return `‹ ${field.options?.find((option) => option.value === value)?.label ?? (value || (field.required ? 'none' : 'default'))} ›`;
};

/** The text with its caret; of a long one the part around it. */
function Typed({ text, at, width }: { text: string; at: number; width: number }) {
  const first = Math.max(0, at - width + 2);
  const shown = printable(text);
  return (
    <Text underline>
      {shown.slice(first, at)}
      <Text inverse>{shown[at] ?? ' '}</Text>
      {shown.slice(at + 1, first + width - 1).padEnd(Math.max(0, Math.min(width, 24) - (at - first) - 1))}
    </Text>
  );
}

function describe({ description, minimum, maximum, kind }: Field, error: string, width: number): { line: string; bad: boolean }[] {
  const range = minimum != null && maximum != null && !description.includes(String(maximum)) ? ` ${minimum} to ${maximum}.` : '';
  const how = kind === 'integers' || kind === 'choices' ? ' Separate several by commas.' : '';
  const wrong = error ? wrap(error, width).map((line) => ({ line, bad: true })) : [];
  return [...wrong, ...wrap(`${description}${range}${how}`.trim(), width).map((line) => ({ line, bad: false }))];
}
