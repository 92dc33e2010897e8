import { findUser } from '../accounts/users.ts';
import { builder, enumValues, idOf, type PayloadFields, PayloadType, payload } from '../graphql/builder.ts';
import { page, pageArgs, textKey } from '../graphql/connection.ts';
import { findModelVersion } from '../models/models.ts';
import { ModelVersionType } from '../models/schema.ts';
import { deploy, rollback, undeploy } from './deploy.ts';
import { findDeployment, findDeploymentByName, listDeployments, listRevisions, revisionIn } from './deployments.ts';
import { SettingsInput, SettingsType, saidSettings } from './settings.schema.ts';
import { type SnippetLanguage, snippetOf } from './snippets.ts';
import type { InferenceHealth } from './supervise.ts';
import type { Deployment, DeploymentRevision, revisionStates } from './tables.ts';

/** Of the list of a deployment's revisions. */
const revisionsMax = 100;

const RevisionStateType = builder.enumType('DeploymentRevisionState', {
  description: 'Where a revision stands.',
  values: enumValues<(typeof revisionStates)[number]>({
    LOADING: 'Is being loaded and warmed up; what served before still serves.',
    ACTIVE: 'Takes the requests of its deployment.',
    RETIRED: 'Served, or was to; another took its place or the deployment was taken away.',
    FAILED: 'Could not be served: `reason` says why. It never took a request.',
  }),
});

const RevisionType = builder.objectRef<DeploymentRevision>('DeploymentRevision').implement({
  description: 'A model version with its settings, behind the name of a deployment.',
  fields: (t) => ({
    number: t.exposeInt('number', { description: 'Counted from 1; the version in the inference protocol.' }),
    state: t.expose('state', { type: RevisionStateType, description: 'Where it stands.' }),
    reason: t.exposeString('reason', { nullable: true, description: 'Why it FAILED.' }),
    modelVersion: t.field({
      type: ModelVersionType,
      nullable: true,
      description: 'What it serves; null when it was deleted.',
      resolve: (r, _a, { db }) => findModelVersion(db, r.modelVersionId),
    }),
    settings: t.field({ type: SettingsType, description: 'How it is served.', resolve: (r) => r.settingsJson }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was asked for.' }),
    createdByName: t.string({
      nullable: true,
      description: 'Name of the user who asked for it.',
      resolve: (r, _a, { db }) => (r.createdById ? findUser(db, r.createdById)?.name : null),
    }),
    activatedAt: t.expose('activatedAt', { type: 'DateTime', nullable: true, description: 'When it took the requests.' }),
    retiredAt: t.expose('retiredAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When another took its place, or the deployment was taken away.',
    }),
  }),
});

const SnippetLanguageType = builder.enumType('SnippetLanguage', {
  description: 'Language of an example.',
  values: enumValues<SnippetLanguage>({
    CURL: 'A line for a shell.',
    PYTHON: 'Python with `requests`.',
    TYPESCRIPT: 'TypeScript, with what Node and browsers have.',
  }),
});

export const DeploymentType = builder.node(builder.objectRef<Deployment>('Deployment'), {
  description: 'A name that inference requests are sent to.',
  id: { resolve: (d) => d.id, description: 'Opaque id.' },
  loadOne: (id, { db }) => findDeployment(db, id),
  authScopes: { can: 'READ' },
  fields: (t) => ({
    name: t.exposeString('name', { description: 'Unique among those that are live; the model in the inference protocol.' }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was first deployed.' }),
    active: t.field({
      type: RevisionType,
      nullable: true,
      description: 'What takes its requests.',
      resolve: (d, _a, { db }) => revisionIn(db, d.id, 'ACTIVE'),
    }),
    loading: t.field({
      type: RevisionType,
      nullable: true,
      description: 'What is to take its requests when it is warm.',
      resolve: (d, _a, { db }) => revisionIn(db, d.id, 'LOADING'),
    }),
    revisions: t.field({
      type: [RevisionType],
      description: `Its history, newest first; at most ${revisionsMax}.`,
      extensions: { size: 20 },
      resolve: (d, _a, { db }) => listRevisions(db, d.id, revisionsMax),
    }),
    snippet: t.string({
      nullable: true,
      description:
        'A client in a few lines, which reads an API key (`createApiKey`) from the variable KEY; null while the inference host does not run.',
      args: { language: t.arg({ type: SnippetLanguageType, required: true, defaultValue: 'CURL', description: 'In which language.' }) },
      resolve: (d, { language }, { supervisor }) => {
        const { url } = supervisor.health();
        return url && snippetOf(language, url, d.name);
      },
    }),
  }),
});

const DeploymentConnection = builder.connectionObject(
  { type: DeploymentType, name: 'DeploymentConnection', description: 'A page of deployments.' },
  { description: 'A deployment in a page.' },
);

const InferenceStateType = builder.enumType('InferenceState', {
  description: 'Where the inference host stands.',
  values: enumValues<InferenceHealth['state']>({
    IDLE: 'Nothing is deployed: there is no host.',
    STARTING: 'It is being started, or loads its first models.',
    READY: 'It serves.',
    DEGRADED:
      'It does not serve everything, or computes fewer runs at a time than it should: `reason` says why. What is missing is tried again within 30 seconds.',
    RESTARTING: 'It has died, or could not be started; the next try follows within 30 seconds.',
  }),
});

const InferenceHealthType = builder.objectRef<InferenceHealth>('InferenceHealth').implement({
  description: 'The process that serves the deployments.',
  fields: (t) => ({
    state: t.expose('state', { type: InferenceStateType, description: 'Where it stands.' }),
    url: t.exposeString('url', { nullable: true, description: 'Where it listens; null while it does not.' }),
    restarts: t.exposeInt('restarts', { description: 'How often it died since the server was started.' }),
    reason: t.exposeString('reason', { nullable: true, description: 'Why it is not READY.' }),
  }),
});

builder.queryFields((t) => ({
  deployments: t.field({
    type: DeploymentConnection,
    description: 'Deployments by name.',
    authScopes: { can: 'READ' },
    args: pageArgs(),
    resolve: (_root, args, { db }) =>
      page(
        'deployments',
        args,
        textKey,
        (limit, after: string | null) => listDeployments(db, limit, after),
        (row) => row.name,
      ),
  }),
  deployment: t.field({
    type: DeploymentType,
    nullable: true,
    description: 'One deployment; null when there is none of this name.',
    authScopes: { can: 'READ' },
    args: { name: t.arg.string({ required: true, description: 'Its name.' }) },
    resolve: (_root, { name }, { db }) => findDeploymentByName(db, name),
  }),
  inferenceHealth: t.field({
    type: InferenceHealthType,
    description: 'How the inference host is.',
    authScopes: { can: 'READ' },
    resolve: (_root, _args, { supervisor }) => supervisor.health(),
  }),
}));

const deploymentPayload = {
  interfaces: [PayloadType],
  outputFields: (t: PayloadFields<Deployment>) => ({
    deployment: t.field({ type: DeploymentType, nullable: true, description: 'The deployment as it is now.', resolve: (p) => p.result }),
  }),
};

builder.relayMutationField(
  'deploy',
  {
    inputFields: (t) => ({
      name: t.string({ required: true, description: 'Name of the deployment; it is made where there is none.' }),
      modelVersionId: t.id({ required: true, description: 'An ONNX version.' }),
      settings: t.field({ type: SettingsInput, description: 'How to serve it; without them as their defaults say.' }),
      benchmarkJobId: t.id({
        description:
          'A benchmark that has ended: `intraOpThreads` and `batchMax` are those of the row that its report chose, whatever the settings say; and so is `engine`, where they say AUTO. Where that row cannot be served, they are those of the best one that can. A version that the report rejects is refused.',
      }),
    }),
  },
  {
    description:
      'Puts a model version behind a name. It is loaded and warmed up beside what serves now, and then takes its place without a lost request. A model that cannot be warmed up never takes a request.',
    authScopes: { can: 'DEPLOY' },
    resolve: (_root, { input: { name, modelVersionId, settings, benchmarkJobId } }, context) =>
      payload(() => {
        const said = {
          name,
          modelVersionId: idOf('ModelVersion', modelVersionId),
          settings: saidSettings(settings),
          benchmarkJobId: benchmarkJobId ? idOf('Job', benchmarkJobId) : null,
        };
        return deploy(context, context.actor, said);
      }),
  },
  deploymentPayload,
);

builder.relayMutationField(
  'rollback',
  {
    inputFields: (t) => ({
      name: t.string({ required: true, description: 'Name of the deployment.' }),
      revision: t.int({ description: 'The revision to put back; without one what served before.' }),
    }),
  },
  {
    description: 'Puts back what served before, as a new revision. It takes over as after `deploy`.',
    authScopes: { can: 'DEPLOY' },
    resolve: (_root, { input: { name, revision } }, context) => payload(() => rollback(context, context.actor, name, revision ?? null)),
  },
  deploymentPayload,
);

builder.relayMutationField(
  'undeploy',
  { inputFields: (t) => ({ name: t.string({ required: true, description: 'Name of the deployment.' }) }) },
  {
    description: 'Takes a deployment away: new requests get 404, running ones still get their answers. The name becomes free.',
    authScopes: { can: 'DEPLOY' },
    resolve: (_root, { input: { name } }, context) => payload(() => undeploy(context, context.actor, name)),
  },
  deploymentPayload,
);
