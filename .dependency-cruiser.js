/** Who may import whom (docs/architecture.md). */
const domains = '^src/(accounts|storage|system|datasets|models|jobs|training|benchmark|reports|deployments|inference|engine|vision)/';

export default {
  forbidden: [
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    { name: 'no-unresolved', severity: 'error', from: {}, to: { couldNotResolve: true } },
    {
      name: 'domain-functions-know-no-graphql',
      comment: "Only a domain's schema.ts speaks GraphQL, so that the rest is tested without a server.",
      severity: 'error',
      from: { path: domains, pathNot: '[/.]schema\\.ts$' },
      to: { path: ['^src/graphql/', '[/.]schema\\.ts$', 'node_modules/(graphql|@pothos|graphql-yoga|graphql-ws)/'] },
    },
    {
      name: 'tables-import-tables-only',
      severity: 'error',
      from: { path: '/tables\\.ts$' },
      to: { pathNot: ['/tables\\.ts$', 'node_modules/drizzle-orm/'] },
    },
    {
      name: 'only-the-root-imports-the-server',
      severity: 'error',
      from: { path: '^src/', pathNot: '^src/main\\.ts$' },
      to: { path: '^src/(server|main)\\.ts$' },
    },
    {
      name: 'neighbours-do-not-import-the-server',
      severity: 'error',
      from: { path: '^trainer/' },
      to: { path: '^src/' },
    },
    {
      name: 'children-open-no-database',
      comment: "A job's child and the inference host get files, never the database.",
      severity: 'error',
      from: { path: '^src/.*/child\\.ts$|^src/inference/' },
      to: { path: '^src/(db|server)\\.ts$|/tables\\.ts$|node_modules/better-sqlite3/', reachable: true },
    },
    {
      name: 'the-server-opens-no-file-of-a-user',
      comment: 'What reads an image, a zip or a model runs in a child; here it would also cost 30 MB.',
      severity: 'error',
      from: { path: '^src/server\\.ts$' },
      to: { path: 'node_modules/(sharp|yauzl|yaml|onnxruntime-node)/', reachable: true },
    },
    {
      name: 'product-imports-no-tests',
      severity: 'error',
      from: { path: '^src/' },
      to: { path: '^(test|bench|scripts)/' },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    parser: 'swc',
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      extensions: ['.ts', '.js', '.mjs', '.json'],
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'types', 'default'],
    },
  },
};
