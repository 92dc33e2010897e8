import type { Example } from './example.ts';

/** Users, and how to log in. */
export const accountsExamples: Example[] = [
  {
    query: `# For administrators: all users by name.
query Users($after: String) {
  users(first: 20, after: $after) {
    nodes {
      id
      name
      role
      createdAt
      disabledAt
    }
    pageInfo {
      hasNextPage
      endCursor
    }
  }
}
`,
    variables: { after: null },
  },
  {
    query: `# For administrators: who did what, newest first.
query AuditLog($filter: AuditFilter) {
  auditLog(first: 20, filter: $filter) {
    nodes {
      at
      actor {
        name
      }
      action
      outcome
      targetType
      targetId
      detail
    }
    pageInfo {
      hasNextPage
      endCursor
    }
  }
}
`,
    variables: { filter: { outcome: 'OK' } },
  },
  {
    query: `# How a program logs in. The access token goes
# into the header "Authorization: Bearer <token>",
# on a WebSocket into the connection parameters.
mutation Login($input: LoginInput!) {
  login(input: $input) {
    credentials {
      accessToken
      accessTokenExpiresAt
      refreshToken
    }
    userErrors {
      field
      message
    }
  }
}
`,
    variables: { input: { name: '', password: '' } },
  },
  {
    query: `# On a new server: creates the first administrator.
# The token is in the file "bootstrap-token" of the
# data folder.
mutation Bootstrap($input: BootstrapInput!) {
  bootstrap(input: $input) {
    user {
      name
      role
    }
    userErrors {
      field
      message
    }
  }
}
`,
    variables: { input: { token: '', name: '', password: '' } },
  },
];
