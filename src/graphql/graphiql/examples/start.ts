import type { Example } from './example.ts';

/** The first tab, which says how to begin. */
export const startExamples: Example[] = [
  {
    query: `# 1. Log in above: it counts for all tabs.
# 2. Ctrl-Enter runs, Ctrl-Space completes.
# 3. The book on the left is the manual.
query Viewer {
  viewer {
    name
    role
    permissions
    sessions {
      client
      refreshedAt
      expiresAt
      current
    }
  }
}
`,
  },
];
