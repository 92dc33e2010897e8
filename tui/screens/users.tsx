/** Users, and one with their sessions; one's own password. */
import { Box, Text } from 'ink';
import { useState } from 'react';
import { type ActionName, type FieldError, useAction } from '../actions.ts';
import { graphql, type ResultOf } from '../graphql.ts';
import { useData, usePages } from '../session/live.tsx';
import { age, moment, printable } from '../ui/format.ts';
import type { KeyRow } from '../ui/keys.tsx';
import { Behind, List } from '../ui/List.tsx';
import { useFrame } from '../ui/nav.tsx';
import { theme } from '../ui/theme.ts';
import { ActionForm } from './actionForm.tsx';

export const UsersQuery = graphql(`
  query TuiUsers($after: String) {
    users(first: 100, after: $after) {
      nodes { id name role createdAt disabledAt sessions { id client refreshedAt expiresAt current } }
      pageInfo { hasNextPage endCursor }
    }
  }
`);

export const UserQuery = graphql(`
  query TuiUser($id: ID!) {
    node(id: $id) {
      ... on User { id name role createdAt disabledAt sessions { id client refreshedAt expiresAt current } }
    }
  }
`);

type User = ResultOf<typeof UsersQuery>['users']['nodes'][number];

/** Whether this terminal is logged in as this user. */
const isSelf = ({ sessions }: User): boolean => sessions.some(({ current }) => current);

/** What came of an action in the footer, in one way for all keys of these screens. */
export function useTell(): (done: string, errors: readonly FieldError[]) => void {
  const { say } = useFrame();
  return (done, errors) => (errors.length > 0 ? say(errors.map(({ message }) => message).join(' '), 'bad') : say(done));
}

const password = { kind: 'secret' } as const;
const forms = {
  create: { title: () => 'New user', submitLabel: 'create', action: 'createUser', type: 'CreateUserInput' },
  change: { title: ({ name }) => `Change ${name}`, submitLabel: 'change', action: 'updateUser', type: 'UpdateUserInput' },
  password: { title: ({ name }) => `New password of ${name}`, submitLabel: 'set', action: 'resetPassword', type: 'ResetPasswordInput' },
} as const satisfies Record<string, { title(user: User): string; submitLabel: string; action: ActionName; type: string }>;

export function Users() {
  const { width, height, go, confirm } = useFrame();
  const { rows, isRead, again, more } = usePages(UsersQuery, {
    pageOf: ({ users }) => users,
    keyOf: ({ id }) => id,
    compare: (a, b) => a.name.localeCompare(b.name),
    everyMs: 5000,
  });
  const [form, setForm] = useState<{ kind: keyof typeof forms; user: User | null } | null>(null);
  const disable = useAction('disableUser');
  const revoke = useAction('revokeSession');
  const tell = useTell();

  const setDisabled = ({ id, name }: User, disabled: boolean) =>
    void disable({ input: { userId: id, disabled } }).then(({ errors }) => {
      tell(disabled ? `${name} cannot log in any more.` : `${name} can log in again.`, errors);
      again();
    });
  const endAll = async ({ name, sessions }: User) => {
    // The session of this terminal comes last: the others could not be ended without it.
    const ordered = [...sessions].sort((a, b) => Number(a.current) - Number(b.current));
    const errors: FieldError[] = [];
    for (const { id } of ordered) errors.push(...(await revoke({ input: { sessionId: id } })).errors);
    tell(`${name} is logged out everywhere.`, errors);
    again();
  };
  const keys = (user: User): KeyRow[] => {
    const { name, disabledAt, sessions } = user;
    const count = `${sessions.length} ${sessions.length === 1 ? 'session' : 'sessions'}`;
    return [
      { keys: 'r', label: 'change name or role', does: 'updateUser', hint: true, run: () => setForm({ kind: 'change', user }) },
      // One's own is changed by `:password`, which asks for the old one.
      ...(isSelf(user)
        ? []
        : [{ keys: 'p', label: 'set a password', does: 'resetPassword', run: () => setForm({ kind: 'password', user }) } as const]),
      disabledAt
        ? { keys: 'x', label: 'enable', does: 'disableUser', hint: true, run: () => setDisabled(user, false) }
        : {
            keys: 'x',
            label: 'disable',
            does: 'disableUser',
            hint: true,
            run: () =>
              confirm(`Disable ${name}? That ends their ${count} and stops their API keys at once.`, () => setDisabled(user, true)),
          },
      ...(sessions.length > 0
        ? [
            {
              keys: 's',
              label: 'end all sessions',
              does: 'revokeSession',
              run: () =>
                confirm(`End the ${count} of ${name}?${isSelf(user) ? ' One is that of this terminal.' : ''}`, () => void endAll(user)),
            } as const,
          ]
        : []),
    ];
  };
  const close = () => setForm(null);
  return (
    <Behind
      front={
        form && (
          <UserForm
            {...form}
            width={width}
            height={height}
            onCancel={close}
            onDone={() => {
              close();
              tell('Done.', []);
              again();
            }}
          />
        )
      }
    >
      <List
        rows={rows}
        isActive={!form}
        keyOf={({ id }) => id}
        width={width}
        height={height}
        empty={isRead ? 'There is no user.' : 'Reading …'}
        onOpen={{ label: 'open', run: ({ id }) => go('user', id) }}
        onEnd={more}
        keys={keys}
        always={[
          { keys: 'n', label: 'new user', does: 'createUser', hint: true, run: () => setForm({ kind: 'create', user: null }) },
          { keys: 'K', label: 'API keys', hint: true, run: () => go('keys') },
          { keys: 'A', label: 'audit log', hint: true, run: () => go('audit') },
        ]}
        columns={[
          { title: 'Name', text: ({ name }) => name },
          { title: 'Role', width: 9, text: ({ role }) => role },
          {
            title: 'State',
            width: 10,
            text: ({ disabledAt }) => (disabledAt ? '○ disabled' : '✓ active'),
            color: ({ disabledAt }) => (disabledAt ? theme.muted : theme.good),
          },
          { title: 'Sessions', width: 8, align: 'right', text: ({ sessions }) => String(sessions.length) },
          { title: 'Last seen', width: 9, from: 60, text: ({ sessions }) => age(sessions[0]?.refreshedAt) },
          { title: 'Created', width: 10, from: 70, text: ({ createdAt }) => moment(createdAt).slice(0, 10) },
        ]}
      />
    </Behind>
  );
}

interface UserFormProps {
  kind: keyof typeof forms;
  user: User | null;
  width: number;
  height: number;
  onDone(): void;
  onCancel(): void;
}

function UserForm({ kind, user, ...rest }: UserFormProps) {
  const { title, ...row } = forms[kind];
  const about = { userId: null, name: { initial: user?.name ?? '' }, role: { initial: user?.role ?? 'VIEWER' }, password };
  return <ActionForm {...row} {...rest} title={title(user as User)} about={about} fixed={user ? { userId: user.id } : {}} />;
}

export function UserScreen({ id }: { id: string }) {
  const { width, height, confirm } = useFrame();
  const { data, again } = useData(UserQuery, { id }, 5000);
  const revoke = useAction('revokeSession');
  const tell = useTell();
  const user = data?.node;
  if (!user || !('sessions' in user)) return <Text color={theme.muted}>{data ? ' There is no such user.' : ' Reading …'}</Text>;
  const end = (sessionId: string) =>
    void revoke({ input: { sessionId } }).then(({ errors }) => {
      tell('The session has ended.', errors);
      again();
    });
  const disabled = user.disabledAt ? `  disabled since ${moment(user.disabledAt)}` : '';
  return (
    <Box flexDirection="column" width={width} height={height}>
      <Text bold wrap="truncate">{` ${printable(user.name)}  ${user.role}  since ${moment(user.createdAt).slice(0, 10)}${disabled}`}</Text>
      <List
        rows={user.sessions}
        keyOf={(session) => session.id}
        width={width}
        height={height - 1}
        empty="No session is open."
        keys={(session) => [
          {
            keys: 'x',
            label: 'end the session',
            does: 'revokeSession',
            hint: true,
            run: () => confirm(session.current ? 'End the session of this terminal?' : 'End this session?', () => end(session.id)),
          },
        ]}
        columns={[
          { title: 'Session', text: ({ client, current }) => `${current ? 'this terminal  ' : ''}${client ?? ''}` },
          { title: 'Last seen', width: 9, text: ({ refreshedAt }) => age(refreshedAt) },
          { title: 'Ends', width: 19, from: 60, text: ({ expiresAt }) => moment(expiresAt) },
        ]}
      />
    </Box>
  );
}

export function Password() {
  const { width, height, back, say } = useFrame();
  return (
    <ActionForm
      title="Change your password"
      submitLabel="change"
      action="changePassword"
      type="ChangePasswordInput"
      about={{ currentPassword: password, newPassword: password }}
      width={width}
      height={height}
      onCancel={back}
      onDone={() => {
        back();
        say('Your password is changed; your other sessions have ended.');
      }}
    />
  );
}
