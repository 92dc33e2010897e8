/** API keys: one's own, for an administrator those of all. A new one's secret is shown once. */
import { useState } from 'react';
import { useAction } from '../actions.ts';
import { graphql, type ResultOf } from '../graphql.ts';
import { usePages } from '../session/live.tsx';
import { age, moment } from '../ui/format.ts';
import { Behind, List } from '../ui/List.tsx';
import { useFrame } from '../ui/nav.tsx';
import { theme } from '../ui/theme.ts';
import { ActionForm } from './actionForm.tsx';
import { Secret } from './secret.tsx';
import { useTell } from './users.tsx';

export const ApiKeysQuery = graphql(`
  query TuiApiKeys($after: String) {
    apiKeys(first: 100, after: $after) {
      nodes { id name prefix owner { name } scopes deployments createdAt expiresAt lastUsedAt revokedAt }
      pageInfo { hasNextPage endCursor }
    }
  }
`);

type ApiKey = ResultOf<typeof ApiKeysQuery>['apiKeys']['nodes'][number];

const stateOf = ({ revokedAt, expiresAt }: ApiKey): string =>
  revokedAt ? '○ revoked' : expiresAt && Date.parse(expiresAt) <= Date.now() ? '○ expired' : '✓ active';

export function ApiKeys() {
  const { width, height, confirm } = useFrame();
  const { rows, isRead, again, more, take } = usePages(ApiKeysQuery, {
    pageOf: ({ apiKeys }) => apiKeys,
    keyOf: ({ id }) => id,
    compare: (a, b) => b.createdAt.localeCompare(a.createdAt),
  });
  const [making, setMaking] = useState(false);
  const [made, setMade] = useState<{ name: string; secret: string } | null>(null);
  const revoke = useAction('revokeApiKey');
  const tell = useTell();
  const end = (row: ApiKey) =>
    void revoke({ input: { apiKeyId: row.id } }).then(({ errors }) => {
      tell(`${row.name} is revoked.`, errors);
      if (errors.length === 0) take([{ ...row, revokedAt: new Date().toISOString() }]);
    });
  const front = made ? (
    <Secret
      {...made}
      use="Programs send it as `Authorization: Bearer <secret>` to the server and to the inference host."
      width={width}
      onClose={() => setMade(null)}
    />
  ) : making ? (
    <ActionForm
      title="New API key"
      submitLabel="make"
      action="createApiKey"
      type="CreateApiKeyInput"
      about={{ name: {}, scopes: {}, deployments: {}, expiresInDays: {} }}
      width={width}
      height={height}
      onCancel={() => setMaking(false)}
      onDone={({ apiKey, secret }) => {
        setMaking(false);
        again();
        if (apiKey && secret) setMade({ name: apiKey.name, secret });
      }}
    />
  ) : null;
  return (
    <Behind front={front}>
      <List
        rows={rows}
        isActive={!front}
        keyOf={({ id }) => id}
        width={width}
        height={height}
        empty={isRead ? 'There is no API key.' : 'Reading …'}
        onEnd={more}
        keys={(row) =>
          row.revokedAt
            ? []
            : [
                {
                  keys: 'x',
                  label: 'revoke',
                  does: 'revokeApiKey',
                  hint: true,
                  run: () =>
                    confirm(`Revoke ${row.name} of ${row.owner.name}? Its programs are refused from then on, for good.`, () => end(row)),
                },
              ]
        }
        always={[{ keys: 'n', label: 'new key', does: 'createApiKey', hint: true, run: () => setMaking(true) }]}
        columns={[
          { title: 'Name', text: ({ name }) => name },
          { title: 'State', width: 9, text: stateOf, color: (row) => (stateOf(row) === '✓ active' ? theme.good : theme.muted) },
          { title: 'Begins with', width: 14, text: ({ prefix }) => `wsk_${prefix}` },
          { title: 'Owner', width: 10, from: 60, text: ({ owner }) => owner.name },
          { title: 'Scopes', width: 14, from: 60, text: ({ scopes }) => scopes.join(', ') },
          {
            title: 'Infers with',
            width: 12,
            from: 110,
            text: ({ scopes, deployments }) => (scopes.includes('INFER') ? (deployments?.join(', ') ?? 'all') : '–'),
          },
          { title: 'Expires', width: 10, from: 90, text: ({ expiresAt }) => (expiresAt ? moment(expiresAt).slice(0, 10) : 'never') },
          { title: 'Used', width: 7, from: 70, text: ({ lastUsedAt }) => (lastUsedAt ? age(lastUsedAt) : 'never') },
          { title: 'Age', width: 7, from: 110, text: ({ createdAt }) => age(createdAt) },
        ]}
      />
    </Behind>
  );
}
