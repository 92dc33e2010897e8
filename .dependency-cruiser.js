/** Who may import whom (docs/architecture.md). */
const leaves = 'engine|vision';
const serverDomains =
  'accounts|storage|system|datasets|models|jobs|training|tuning|benchmark|reports|history|deployments|packages|loadTest|tags|backup|webhooks|alerts|retention';
const domains = `^src/(${serverDomains}|inference|${leaves})/`;

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
      name: 'schemas-hold-no-sql',
      comment: 'What is read stands in functions, which are tested without a server.',
      severity: 'error',
      from: { path: '[/.]schema\\.ts$' },
      to: { path: 'node_modules/drizzle-orm/' },
    },
    {
      name: 'tables-import-tables-only',
      comment: 'Of specs.ts the type of the kinds of jobs.',
      severity: 'error',
      from: { path: '/tables\\.ts$' },
      to: { pathNot: ['/tables\\.ts$', 'node_modules/drizzle-orm/', '^src/jobs/specs\\.ts$'] },
    },
    {
      name: 'only-the-root-imports-the-server',
      severity: 'error',
      from: { path: '^src/', pathNot: '^src/(main|commands)\\.ts$' },
      to: { path: '^src/(server|main|commands)\\.ts$' },
    },
    {
      name: 'neighbours-do-not-import-the-server',
      severity: 'error',
      from: { path: '^trainer/' },
      to: { path: '^src/' },
    },
    {
      name: 'engine-is-a-leaf',
      comment: 'It opens model files for whoever asks. What is on the machine it asks the machine.',
      severity: 'error',
      from: { path: '^src/engine/' },
      to: { path: '^src/', pathNot: ['^src/engine/', '^src/system/gpus\\.ts$'] },
    },
    {
      name: 'vision-is-a-leaf',
      comment: 'It knows what a tensor is, how its dimensions are named, and where the addon is, and nothing else.',
      severity: 'error',
      from: { path: '^src/vision/' },
      to: { path: '^src/', pathNot: ['^src/vision/', '^src/engine/(engine|datatypes|shapes|libraries)\\.ts$'] },
    },
    {
      name: 'plots-import-nothing',
      comment: 'From series to SVG: pure functions for whoever has a series.',
      severity: 'error',
      from: { path: '^src/plots/' },
      to: { path: '^src/', pathNot: '^src/plots/' },
    },
    {
      name: 'the-inference-host-imports-leaves',
      comment: 'It is a process of its own, and runs without the server.',
      severity: 'error',
      from: { path: '^src/inference/' },
      to: { path: `^src/(${serverDomains}|graphql|cli)/` },
    },
    {
      name: 'commands-of-the-user-import-no-domain',
      comment: 'They speak HTTP with a server, as anybody else.',
      severity: 'error',
      from: { path: '^src/cli/' },
      to: { path: `^src/(${serverDomains}|inference|graphql)/` },
    },
    {
      name: 'the-terminal-ui-knows-the-schema-only',
      comment: 'Its contract is schema.graphql, as that of every other client; and the product runs without it.',
      severity: 'error',
      from: { path: '^tui/' },
      to: { path: '^(src|test|bench|scripts)/' },
    },
    {
      name: 'what-clients-share-imports-nothing-of-the-project',
      severity: 'error',
      from: { path: '^client/' },
      to: { path: '^(src|tui|test|bench|scripts)/' },
    },
    {
      name: 'an-engine-is-loaded-by-its-row',
      comment: 'A library of 45 MB, in the processes that open models only, and never without `telemetry.ts`.',
      severity: 'error',
      from: { pathNot: '^src/engine/onnxruntime\\.ts$' },
      to: { path: 'node_modules/onnxruntime-node/' },
    },
    {
      name: 'an-engine-is-loaded-on-demand',
      comment: 'Every other file of the folder is that of an engine: `load` of its row imports it.',
      severity: 'error',
      from: {},
      to: {
        path: '^src/engine/',
        pathNot: '^src/engine/(engine|engines|hostEngine|libraries|providers|datatypes|shapes|externalData|telemetry)\\.ts$',
        dynamic: false,
      },
    },
    {
      name: 'traces-are-loaded-on-demand',
      comment: "Without an endpoint OpenTelemetry's SDK is not loaded.",
      severity: 'error',
      from: { path: '^src/' },
      to: { path: '^src/otlp\\.ts$', dynamic: false },
    },
    {
      name: 'one-file-knows-opentelemetry',
      severity: 'error',
      from: { pathNot: '^src/otlp\\.ts$' },
      to: { path: 'node_modules/@opentelemetry/' },
    },
    {
      name: 'tracing-is-a-leaf',
      comment: 'Everything may ask for the span that it belongs to.',
      severity: 'error',
      from: { path: '^src/tracing\\.ts$' },
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
      comment: 'What reads an image or a zip runs in a child; here it would also cost 30 MB. Of models see an-engine-is-loaded-on-demand.',
      severity: 'error',
      from: { path: '^src/server\\.ts$' },
      to: { path: 'node_modules/(sharp|yauzl|yaml)/', reachable: true },
    },
    {
      name: 'product-imports-no-tests',
      severity: 'error',
      from: { path: '^src/' },
      to: { path: '^(tui|test|bench|scripts)/' },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    parser: 'swc',
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      extensions: ['.ts', '.tsx', '.js', '.mjs', '.json'],
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'types', 'default'],
    },
  },
};
