/**
 * What a user can change, in one table: each mutation with the permission that the server wants for it. A key that starts one takes its
 * permission from here, and a test holds the table against the server.
 */
import type { AnyVariables, CombinedError, TypedDocumentNode } from '@urql/core';
import { useCallback } from 'react';
import { useClient } from 'urql';
import { graphql, type ResultOf, type VariablesOf } from './graphql.ts';
import type { introspection } from './schema.d.ts';
import { printable } from './ui/format.ts';

export type Permission = introspection['types']['Permission']['enumValues'];

export const actions = {
  cancelJob: {
    needs: 'RUN_JOBS',
    document: graphql(`
      mutation TuiCancelJob($input: CancelJobInput!) {
        cancelJob(input: $input) { job { id state } userErrors { field message } }
      }
    `),
  },
  retryJob: {
    needs: 'RUN_JOBS',
    document: graphql(`
      mutation TuiRetryJob($input: RetryJobInput!) {
        retryJob(input: $input) { job { id } userErrors { field message } }
      }
    `),
  },
  startTraining: {
    needs: 'RUN_JOBS',
    document: graphql(`
      mutation TuiStartTraining($input: StartTrainingInput!) {
        startTraining(input: $input) { job { id } userErrors { field message } }
      }
    `),
  },
  startEvaluation: {
    needs: 'RUN_JOBS',
    document: graphql(`
      mutation TuiStartEvaluation($input: StartEvaluationInput!) {
        startEvaluation(input: $input) { job { id } userErrors { field message } }
      }
    `),
  },
  startConversion: {
    needs: 'RUN_JOBS',
    document: graphql(`
      mutation TuiStartConversion($input: StartConversionInput!) {
        startConversion(input: $input) { job { id } userErrors { field message } }
      }
    `),
  },
  startCompression: {
    needs: 'RUN_JOBS',
    document: graphql(`
      mutation TuiStartCompression($input: StartCompressionInput!) {
        startCompression(input: $input) { job { id } userErrors { field message } }
      }
    `),
  },
  startBenchmark: {
    needs: 'RUN_JOBS',
    document: graphql(`
      mutation TuiStartBenchmark($input: StartBenchmarkInput!) {
        startBenchmark(input: $input) { job { id } userErrors { field message } }
      }
    `),
  },
  createDataset: {
    needs: 'UPLOAD',
    document: graphql(`
      mutation TuiCreateDataset($input: CreateDatasetInput!) {
        createDataset(input: $input) { datasetVersion { id job { id } } userErrors { field message } }
      }
    `),
  },
  createModel: {
    needs: 'UPLOAD',
    document: graphql(`
      mutation TuiCreateModel($input: CreateModelInput!) {
        createModel(input: $input) { modelVersion { id job { id } } userErrors { field message } }
      }
    `),
  },
  deploy: {
    needs: 'DEPLOY',
    document: graphql(`
      mutation TuiDeploy($input: DeployInput!) {
        deploy(input: $input) { deployment { id name } userErrors { field message } }
      }
    `),
  },
  rollback: {
    needs: 'DEPLOY',
    document: graphql(`
      mutation TuiRollback($input: RollbackInput!) {
        rollback(input: $input) { deployment { id name } userErrors { field message } }
      }
    `),
  },
  undeploy: {
    needs: 'DEPLOY',
    document: graphql(`
      mutation TuiUndeploy($input: UndeployInput!) {
        undeploy(input: $input) { deployment { id name } userErrors { field message } }
      }
    `),
  },
  infer: {
    needs: 'TRY_DEPLOYMENTS',
    document: graphql(`
      mutation TuiInfer($input: InferInput!) {
        infer(input: $input) {
          prediction {
            revision
            classes { label index probability }
            detections { label index score x y width height }
          }
          userErrors { field message }
        }
      }
    `),
  },
  createUser: {
    needs: 'MANAGE_USERS',
    document: graphql(`
      mutation TuiCreateUser($input: CreateUserInput!) {
        createUser(input: $input) { user { id } userErrors { field message } }
      }
    `),
  },
  updateUser: {
    needs: 'MANAGE_USERS',
    document: graphql(`
      mutation TuiUpdateUser($input: UpdateUserInput!) {
        updateUser(input: $input) { user { id } userErrors { field message } }
      }
    `),
  },
  disableUser: {
    needs: 'MANAGE_USERS',
    document: graphql(`
      mutation TuiDisableUser($input: DisableUserInput!) {
        disableUser(input: $input) { user { id } userErrors { field message } }
      }
    `),
  },
  resetPassword: {
    needs: 'MANAGE_USERS',
    document: graphql(`
      mutation TuiResetPassword($input: ResetPasswordInput!) {
        resetPassword(input: $input) { user { id } userErrors { field message } }
      }
    `),
  },
  revokeSession: {
    needs: 'MANAGE_USERS',
    document: graphql(`
      mutation TuiRevokeSession($input: RevokeSessionInput!) {
        revokeSession(input: $input) { session { id } userErrors { field message } }
      }
    `),
  },
  changePassword: {
    needs: 'READ',
    document: graphql(`
      mutation TuiChangePassword($input: ChangePasswordInput!) {
        changePassword(input: $input) { user { id } userErrors { field message } }
      }
    `),
  },
  createApiKey: {
    needs: 'READ',
    document: graphql(`
      mutation TuiCreateApiKey($input: CreateApiKeyInput!) {
        createApiKey(input: $input) { apiKey { id name } secret userErrors { field message } }
      }
    `),
  },
  /** Everybody may revoke their own; those of others are shown only to those who may revoke them. */
  revokeApiKey: {
    needs: 'READ',
    document: graphql(`
      mutation TuiRevokeApiKey($input: RevokeApiKeyInput!) {
        revokeApiKey(input: $input) { apiKey { id } userErrors { field message } }
      }
    `),
  },
  createWebhook: {
    needs: 'CONFIGURE',
    document: graphql(`
      mutation TuiCreateWebhook($input: CreateWebhookInput!) {
        createWebhook(input: $input) { webhook { id url } secret userErrors { field message } }
      }
    `),
  },
  updateWebhook: {
    needs: 'CONFIGURE',
    document: graphql(`
      mutation TuiUpdateWebhook($input: UpdateWebhookInput!) {
        updateWebhook(input: $input) { webhook { id } userErrors { field message } }
      }
    `),
  },
  deleteWebhook: {
    needs: 'CONFIGURE',
    document: graphql(`
      mutation TuiDeleteWebhook($input: DeleteWebhookInput!) {
        deleteWebhook(input: $input) { deletedWebhookId userErrors { field message } }
      }
    `),
  },
  rotateWebhookSecret: {
    needs: 'CONFIGURE',
    document: graphql(`
      mutation TuiRotateWebhookSecret($input: RotateWebhookSecretInput!) {
        rotateWebhookSecret(input: $input) { webhook { id } secret userErrors { field message } }
      }
    `),
  },
  testWebhook: {
    needs: 'CONFIGURE',
    document: graphql(`
      mutation TuiTestWebhook($input: TestWebhookInput!) {
        testWebhook(input: $input) { delivery { id } userErrors { field message } }
      }
    `),
  },
  redeliverWebhook: {
    needs: 'CONFIGURE',
    document: graphql(`
      mutation TuiRedeliverWebhook($input: RedeliverWebhookInput!) {
        redeliverWebhook(input: $input) { delivery { id } userErrors { field message } }
      }
    `),
  },
  updateAlertRule: {
    needs: 'CONFIGURE',
    document: graphql(`
      mutation TuiUpdateAlertRule($input: UpdateAlertRuleInput!) {
        updateAlertRule(input: $input) { alertRule { metric } userErrors { field message } }
      }
    `),
  },
} as const satisfies Record<string, { needs: Permission; document: TypedDocumentNode<unknown, never> }>;

export type ActionName = keyof typeof actions;
type Document<Name extends ActionName> = (typeof actions)[Name]['document'];
type Payload<Name extends ActionName> = ResultOf<Document<Name>> extends infer Data ? Data[keyof Data] : never;

export interface FieldError {
  field: readonly string[] | null;
  message: string;
}

/** What came of an action: its payload, or what is wrong, field by field. */
export type Outcome<Name extends ActionName> = { payload: Payload<Name>; errors: [] } | { payload: null; errors: FieldError[] };

export function useAction<Name extends ActionName>(name: Name): (variables: VariablesOf<Document<Name>>) => Promise<Outcome<Name>> {
  const client = useClient();
  return useCallback(
    async (variables) => {
      const { data, error } = await client.mutation(
        actions[name].document as TypedDocumentNode<unknown, AnyVariables>,
        variables as AnyVariables,
      );
      if (error) return { payload: null, errors: [{ field: null, message: reasonOf(error) }] };
      const payload: unknown = Object.values(data as object)[0];
      const { userErrors } = payload as { userErrors: FieldError[] };
      return userErrors.length > 0 ? { payload: null, errors: userErrors } : { payload: payload as Payload<Name>, errors: [] };
    },
    [client, name],
  );
}

/** The server's own message, or that there is no connection. */
export const reasonOf = ({ graphQLErrors, networkError }: CombinedError): string =>
  graphQLErrors[0] ? printable(graphQLErrors[0].message) : networkError ? 'The server cannot be reached now. Trying again.' : 'No answer.';
