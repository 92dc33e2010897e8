/** A form for one action on what a screen shows: its fields come from the input type, as the server describes it. */
import { Text } from 'ink';
import { type ActionName, type Outcome, useAction } from '../actions.ts';
import { Form } from '../ui/Form.tsx';
import { type Field, fieldsOf } from '../ui/fields.ts';
import { theme } from '../ui/theme.ts';
import { useInputFields } from './start.tsx';

interface Props<Name extends ActionName> {
  title: string;
  submitLabel: string;
  action: Name;
  /** The input type of the mutation. */
  type: string;
  /** What the schema does not say of a field; one that is null is left out. */
  about: Record<string, Partial<Field> | null>;
  /** Sent with what is typed, such as the id of what is changed. */
  fixed?: Record<string, unknown>;
  width: number;
  height: number;
  onDone(payload: NonNullable<Outcome<Name>['payload']>): void;
  onCancel(): void;
}

export function ActionForm<Name extends ActionName>({ action, type, about, fixed, onDone, ...form }: Props<Name>) {
  const act = useAction(action);
  const described = useInputFields(type);
  if (!described) return <Text color={theme.muted}> Reading what the server takes …</Text>;
  const submit = async (typed: Record<string, unknown>) => {
    const { payload, errors } = await act({ input: { ...typed, ...fixed } } as never);
    if (payload) onDone(payload);
    return errors;
  };
  return <Form {...form} fields={fieldsOf(described, about)} submit={submit} />;
}
