/* global YogaGraphiQL, graphqlWs */
import { examples } from './examples.js';
import { accessToken, logIn, logOut, onSession, request, useToken } from './session.js';

const element = (id) => document.getElementById(id);

// The bar at the top: who is logged in.

onSession((session, message) => {
  element('anonymous').hidden = session !== null;
  element('known').hidden = session === null;
  element('who').textContent = session && `${session.name} (${session.role.toLowerCase()})`;
  element('message').textContent = message;
});

/** Runs `act` with the fields of a form and shows what goes wrong. */
function onSubmit(form, act) {
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    element('message').textContent = '';
    const button = form.querySelector('button');
    button.disabled = true;
    try {
      await act(Object.fromEntries(new FormData(form)));
      form.reset();
    } catch (error) {
      element('message').textContent = error.message;
    } finally {
      button.disabled = false;
    }
  });
}

onSubmit(element('login'), ({ name, password }) => logIn(name, password));
onSubmit(element('token'), ({ token }) => useToken(token.trim()));
element('logout').addEventListener('click', logOut);

// Queries and mutations go over HTTP, subscriptions over one WebSocket.

const socket = graphqlWs.createClient({
  url: new URL(location.pathname, location.href.replace(/^http/, 'ws')).href,
  connectionParams: async () => {
    const token = await accessToken();
    return token && { authorization: `Bearer ${token}` };
  },
});
// A socket lives as long as the token it was opened with: subscriptions go on over one with the new token.
onSession(() => socket.terminate());

/** The document of the editor, the next time that GraphiQL has parsed it: 100 ms after a change. */
let parsed = Promise.withResolvers();

async function fetcher(params, { documentAST } = {}) {
  // Until then GraphiQL sends the query of a tab that was just opened with the operation's name of the tab before.
  const outdated = documentAST && documentAST.loc.source.body !== params.query;
  const document = outdated ? await parsed.promise : documentAST;
  const operations = document?.definitions.filter(({ kind }) => kind === 'OperationDefinition') ?? [];
  const operation = operations.find(({ name }) => name?.value === params.operationName) ?? operations[0];
  const named = operation ? { ...params, operationName: operation.name?.value } : params;
  return operation?.operation === 'subscription' ? subscribe(named, operation.selectionSet.selections[0]) : request(named);
}

/** Subscriptions of which every item counts. GraphiQL shows one answer at a time: of these, one with the items so far, newest first. */
const histories = ['jobEvents', 'jobLogs'];
const shownMax = 200;

function withEarlier({ name, alias }, next) {
  if (!histories.includes(name?.value)) return next;
  const key = (alias ?? name).value;
  let items = [];
  return (answer) => {
    if (!answer.data) return next({ ...answer, data: { [key]: items } });
    items = [answer.data[key], ...items].slice(0, shownMax);
    next({ ...answer, data: { [key]: items } });
  };
}

/** An observable, as GraphiQL takes it. */
function subscribe(params, field) {
  return {
    subscribe: ({ next, complete }) => ({
      unsubscribe: socket.subscribe(params, {
        next: withEarlier(field, next),
        complete,
        error: (error) => {
          const closed = error instanceof CloseEvent;
          const message = closed ? `The connection was closed (${error.code}). ${error.reason}` : error.message;
          next({ errors: Array.isArray(error) ? error : [{ message }] });
          complete();
        },
      }),
    }),
  };
}

// GraphiQL.

self.MonacoEnvironment = {
  globalAPI: false,
  getWorkerUrl: (_module, label) => new URL(`${label}.js`, import.meta.url).href,
};

// A link may bring a query: it gets its own tab, once. GraphiQL opens an empty tab when it is not told which one was open.
const link = new URL(location.href).searchParams;
const brought = link.has('query') ? { query: link.get('query'), variables: link.get('variables') } : undefined;
history.replaceState(null, '', location.pathname);
const saved = JSON.parse(sessionStorage.getItem('graphiql:tabState'));
const open = brought ?? saved?.tabs[saved.activeTabIndex];

const tabs = examples.map(({ query, variables }) => ({ query, variables: variables && JSON.stringify(variables, null, 2) }));

YogaGraphiQL.renderYogaGraphiQL(element('root'), {
  title: ' ',
  logo: ' ',
  fetcher,
  query: open?.query ?? undefined,
  variables: open?.variables ?? undefined,
  defaultTabs: brought ? [brought, ...tabs] : tabs,
  isHeadersEditorEnabled: false,
  shouldPersistHeaders: false,
  // Variables hold passwords: what is typed here ends with the browser tab, and does not get into the address.
  storage: sessionStorage,
  onEditQuery: (_query, document) => {
    parsed.resolve(document);
    parsed = Promise.withResolvers();
  },
});
