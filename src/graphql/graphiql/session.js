/**
 * The login of the page: one access token for all tabs, over HTTP and the WebSocket. It is held in memory. Only while the page is
 * reloaded it lies in sessionStorage, so that a duplicated browser tab cannot send the same refresh token a second time, which
 * ends the session.
 */

const endpoint = location.pathname;
const stored = 'whetstone:session';
/** A token is refreshed this long before it expires. */
const marginMs = 60_000;

const credentials = 'credentials { accessToken accessTokenExpiresAt refreshToken user { name role } }';

/** @type {{ name: string, role: string, accessToken: string, expiresAt: number | null, refreshToken: string | null } | null} */
let session = take();
let timer;
let refreshing = null;
const listeners = [];

/** Calls `listener` with the session (null: nobody is logged in) and a message, now and at each change. */
export function onSession(listener) {
  listeners.push(listener);
  listener(session, '');
}

function change(next, message = '') {
  session = next;
  schedule();
  for (const listener of listeners) listener(session, message);
}

function take() {
  const text = sessionStorage.getItem(stored);
  sessionStorage.removeItem(stored);
  return text && JSON.parse(text);
}

addEventListener('pagehide', () => {
  if (session) sessionStorage.setItem(stored, JSON.stringify(session));
});
addEventListener('pageshow', ({ persisted }) => {
  if (persisted) change(take());
});

function schedule() {
  clearTimeout(timer);
  if (session?.expiresAt) timer = setTimeout(accessToken, Math.max(0, session.expiresAt - marginMs - Date.now()));
}
schedule();

/** The access token, refreshed if it is about to expire; undefined without a login. */
export async function accessToken() {
  await refreshing;
  if (session?.refreshToken && Date.now() >= session.expiresAt - marginMs) {
    refreshing = refresh(session).finally(() => {
      refreshing = null;
    });
    await refreshing;
  }
  return session?.accessToken;
}

/** Sends one request with the access token and returns the answer of GraphQL. */
export async function request(params) {
  const token = await accessToken();
  const { response, answer } = await send(params, token);
  // Only the door asks for credentials; a wrong password in a `login` of a tab has the same code, and not this header.
  const refused = response.status === 401 && response.headers.has('www-authenticate');
  if (refused && token && token === session?.accessToken) change(null, answer.errors[0].message);
  return answer;
}

/** Logs in; throws an Error that says what is wrong. */
export async function logIn(name, password) {
  const query = `mutation LogIn($input: LoginInput!) { login(input: $input) { ${credentials} userErrors { message } } }`;
  const { response, answer } = await send({ query, variables: { input: { name, password } } });
  const given = answer.data?.login?.credentials;
  if (!given) throw new Error((answer.errors ?? answer.data.login.userErrors)[0].message);
  change(sessionOf(given, response));
}

/** Uses an access token that was made elsewhere: it cannot be refreshed. Throws like `logIn`. */
export async function useToken(token) {
  const { answer } = await send({ query: 'query Who { viewer { name role } }' }, token);
  const viewer = answer.data?.viewer;
  if (!viewer) throw new Error(answer.errors[0].message);
  change({ ...viewer, accessToken: token, expiresAt: null, refreshToken: null });
}

export async function logOut() {
  await refreshing;
  const refreshToken = session?.refreshToken;
  change(null);
  const query = 'mutation LogOut($input: LogoutInput!) { logout(input: $input) { userErrors { message } } }';
  if (refreshToken) await send({ query, variables: { input: { refreshToken } } });
}

async function refresh(old) {
  const { refreshToken } = old;
  // It works once: if the page is reloaded before the answer, it must not be sent again.
  old.refreshToken = null;
  const query = `mutation Refresh($input: RefreshInput!) { refresh(input: $input) { ${credentials} userErrors { message } } }`;
  try {
    const { response, answer } = await send({ query, variables: { input: { refreshToken } } });
    const given = answer.data?.refresh?.credentials;
    if (given) return change(sessionOf(given, response));
    if (answer.errors[0].extensions.code === 'UNAUTHENTICATED') return change(null, answer.errors[0].message);
  } catch {
    // The server is away: the next request tries again.
  }
  old.refreshToken = refreshToken;
}

function sessionOf({ accessToken, accessTokenExpiresAt, refreshToken, user }, response) {
  // The server's clock says how long the token lives; this machine's may be wrong.
  const livesMs = Date.parse(accessTokenExpiresAt) - Date.parse(response.headers.get('date'));
  return { ...user, accessToken, refreshToken, expiresAt: Date.now() + livesMs };
}

async function send(params, token) {
  const response = await fetch(endpoint, {
    method: 'POST',
    headers: {
      accept: 'application/graphql-response+json, application/json',
      'content-type': 'application/json',
      ...(token && { authorization: `Bearer ${token}` }),
    },
    body: JSON.stringify(params),
  });
  return { response, answer: await response.json() };
}
