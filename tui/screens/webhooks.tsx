/** Webhooks, and one with its deliveries. A secret is shown once: when a webhook is made, and when its secret is rotated. */
import { Box, Text } from 'ink';
import { useState } from 'react';
import { useAction } from '../actions.ts';
import { graphql, type ResultOf } from '../graphql.ts';
import { useData } from '../session/live.tsx';
import { age, moment, printable } from '../ui/format.ts';
import { Behind, List } from '../ui/List.tsx';
import { useFrame } from '../ui/nav.tsx';
import { states, theme } from '../ui/theme.ts';
import { ActionForm } from './actionForm.tsx';
import { stateText } from './datasets.tsx';
import { Secret } from './secret.tsx';
import { useTell } from './users.tsx';

export const WebhooksQuery = graphql(`
  query TuiWebhooks {
    webhooks(first: 20) {
      nodes { id url events enabled createdAt rotationEndsAt deliveries(first: 1) { nodes { state createdAt } } }
    }
  }
`);

export const WebhookQuery = graphql(`
  query TuiWebhook($id: ID!) {
    node(id: $id) {
      ... on Webhook {
        url events enabled
        deliveries(first: 50) { nodes { id event state attempts createdAt nextAttemptAt httpStatus response problem } }
      }
    }
  }
`);

type Webhook = ResultOf<typeof WebhooksQuery>['webhooks']['nodes'][number];

/** Deliveries come and end while somebody looks. */
const refreshMs = 2000;

type Shown = { form: 'create' } | { form: 'rotate'; id: string; url: string } | { secret: string; url: string };

export function Webhooks() {
  const { width, height, go, confirm } = useFrame();
  const { data, again } = useData(WebhooksQuery, {}, refreshMs);
  const [shown, setShown] = useState<Shown | null>(null);
  const test = useTest();
  const update = useAction('updateWebhook');
  const remove = useAction('deleteWebhook');
  const tell = useTell();
  const setEnabled = ({ id, url }: Webhook, enabled: boolean) =>
    void update({ input: { webhookId: id, enabled } }).then(({ errors }) => {
      tell(`${url} is ${enabled ? 'enabled' : 'disabled'}.`, errors);
      again();
    });
  const end = ({ id, url }: Webhook) =>
    void remove({ input: { webhookId: id } }).then(({ errors }) => {
      tell(`${url} is deleted.`, errors);
      again();
    });
  const form = { width, height, onCancel: () => setShown(null) };
  const show = (url: string | undefined, secret: string | null) => {
    setShown(url && secret ? { url, secret } : null);
    again();
  };
  const front =
    shown === null ? null : 'secret' in shown ? (
      <Secret
        name={shown.url}
        secret={shown.secret}
        use="The receiver checks the signature of each request with it: docs/webhooks.md has an example."
        width={width}
        onClose={() => setShown(null)}
      />
    ) : shown.form === 'create' ? (
      <ActionForm
        {...form}
        title="New webhook"
        submitLabel="make"
        action="createWebhook"
        type="CreateWebhookInput"
        about={{}}
        onDone={({ webhook, secret }) => show(webhook?.url, secret)}
      />
    ) : (
      <ActionForm
        {...form}
        title={`New secret of ${shown.url}`}
        submitLabel="rotate"
        action="rotateWebhookSecret"
        type="RotateWebhookSecretInput"
        about={{ webhookId: null }}
        fixed={{ webhookId: shown.id }}
        onDone={({ secret }) => show(shown.url, secret)}
      />
    );
  return (
    <Behind front={front}>
      <List
        rows={data?.webhooks.nodes ?? []}
        isActive={!front}
        keyOf={({ id }) => id}
        width={width}
        height={height}
        empty={data ? 'There is no webhook.' : 'Reading …'}
        onOpen={{ label: 'deliveries', run: ({ id }) => go('webhook', id) }}
        keys={(row) => [
          { keys: 't', label: 'test', does: 'testWebhook', hint: true, run: () => test(row.id, () => go('webhook', row.id)) },
          {
            keys: 'e',
            label: row.enabled ? 'disable' : 'enable',
            does: 'updateWebhook',
            hint: true,
            run: () => setEnabled(row, !row.enabled),
          },
          {
            keys: 'S',
            label: 'new secret',
            does: 'rotateWebhookSecret',
            run: () => setShown({ form: 'rotate', id: row.id, url: row.url }),
          },
          {
            keys: 'x',
            label: 'delete',
            does: 'deleteWebhook',
            run: () => confirm(`Delete ${row.url} and its deliveries?`, () => end(row)),
          },
        ]}
        always={[{ keys: 'n', label: 'new webhook', does: 'createWebhook', hint: true, run: () => setShown({ form: 'create' }) }]}
        columns={[
          { title: 'URL', text: ({ url }) => url },
          {
            title: 'State',
            width: 10,
            text: ({ enabled }) => (enabled ? '✓ enabled' : '○ disabled'),
            color: ({ enabled }) => (enabled ? theme.good : theme.muted),
          },
          { title: 'Events', width: 20, from: 70, text: ({ events }) => events.join(', ') },
          {
            title: 'Last delivery',
            width: 13,
            text: ({ deliveries: { nodes } }) => (nodes[0] ? stateText(nodes[0].state) : 'none'),
            color: ({ deliveries: { nodes } }) => states[nodes[0]?.state ?? '']?.color,
          },
          { title: 'Sent', width: 7, from: 90, text: ({ deliveries: { nodes } }) => age(nodes[0]?.createdAt) },
          {
            title: 'Old secret ends',
            width: 16,
            from: 110,
            text: ({ rotationEndsAt }) => (rotationEndsAt ? moment(rotationEndsAt).slice(0, 16) : '–'),
          },
        ]}
      />
    </Behind>
  );
}

/** Sends a test delivery; `then` shows where its answer will stand. */
function useTest(): (webhookId: string, then: () => void) => void {
  const test = useAction('testWebhook');
  const tell = useTell();
  return (webhookId, then) =>
    void test({ input: { webhookId } }).then(({ errors }) => {
      tell('The test is sent: its answer is in the first line.', errors);
      if (errors.length === 0) then();
    });
}

export function WebhookScreen({ id }: { id: string }) {
  const { width, height } = useFrame();
  const { data, again } = useData(WebhookQuery, { id }, refreshMs);
  const redeliver = useAction('redeliverWebhook');
  const test = useTest();
  const tell = useTell();
  const webhook = data?.node;
  if (!webhook || !('deliveries' in webhook)) return <Text color={theme.muted}>{data ? ' There is no such webhook.' : ' Reading …'}</Text>;
  const send = (deliveryId: string) =>
    void redeliver({ input: { deliveryId } }).then(({ errors }) => {
      tell('The delivery is sent again.', errors);
      again();
    });
  return (
    <Box flexDirection="column" width={width} height={height}>
      <Text bold wrap="truncate">
        {` ${printable(webhook.url)}  ${webhook.enabled ? 'enabled' : 'disabled'}  ${webhook.events.join(', ')}`}
      </Text>
      <List
        rows={webhook.deliveries.nodes}
        keyOf={(delivery) => delivery.id}
        width={width}
        height={height - 1}
        empty="Nothing was delivered yet."
        keys={(delivery) => [{ keys: 'r', label: 'send again', does: 'redeliverWebhook', hint: true, run: () => send(delivery.id) }]}
        always={[{ keys: 't', label: 'test', does: 'testWebhook', hint: true, run: () => test(id, again) }]}
        columns={[
          { title: 'State', width: 11, text: ({ state }) => stateText(state), color: ({ state }) => states[state]?.color },
          { title: 'Event', width: 18, text: ({ event }) => event },
          { title: 'Tries', width: 5, align: 'right', text: ({ attempts }) => String(attempts) },
          { title: 'Status', width: 6, from: 60, align: 'right', text: ({ httpStatus }) => String(httpStatus ?? '–') },
          { title: 'Age', width: 7, text: ({ createdAt }) => age(createdAt) },
          {
            title: 'Next try',
            width: 8,
            from: 100,
            text: ({ nextAttemptAt }) => (nextAttemptAt ? moment(nextAttemptAt).slice(11) : '–'),
          },
          { title: 'Problem, or answer', text: ({ problem, response }) => problem ?? response ?? '' },
        ]}
      />
    </Box>
  );
}
