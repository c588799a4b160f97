// Asks the HTTP API: JSON answers, problem+json errors in words, and the server's clock.

const BASE = "/api/v1";
const ANSWER_MS = 20000;

let ahead_ms = 0; // the server's clock less ours
let session = 0; // how often somebody has signed in
const onUnauthorized = new Set();

/** An answer that is an error, or none at all (`status` 0). */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.name = "ApiError";
    this.status = status;
  }
}

/** Calls back whenever the API asks for a token. */
export function whenUnauthorized(listener) {
  onUnauthorized.add(listener);
}

/** Milliseconds since 1970 by the server's clock, which is the one that events are stamped by. */
export function serverNow() {
  return Date.now() + ahead_ms;
}

/** The path of something below /api/v1, each part escaped. */
export function pathOf(...parts) {
  return `${BASE}/${parts.map(encodeURIComponent).join("/")}`;
}

/** Asks and returns the response; throws ApiError for errors. */
export async function ask(path, { method = "GET", body, signal, patient = false } = {}) {
  const limits = [signal, patient ? null : AbortSignal.timeout(ANSWER_MS)].filter(Boolean);
  const asked = session;
  let response;
  try {
    response = await fetch(path, {
      method,
      cache: "no-store",
      credentials: "same-origin",
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: limits.length ? AbortSignal.any(limits) : undefined,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "Storeguard does not answer");
  }
  keepTime(response);
  if (!response.ok) throw await refusal(response, path, asked);
  return response;
}

/** The JSON of an answer; `question` holds query parameters, of which empty ones are left out. */
export async function get(path, question = {}, { signal } = {}) {
  const given = Object.entries(question).filter(([, value]) => value !== "" && value != null);
  const query = new URLSearchParams(given).toString();
  return (await ask(query ? `${path}?${query}` : path, { signal })).json();
}

/** /healthz, whose 503 is an answer too. */
export async function health() {
  let response;
  try {
    response = await fetch("/healthz", {
      cache: "no-store",
      signal: AbortSignal.timeout(ANSWER_MS),
    });
    keepTime(response);
    return await response.json();
  } catch {
    throw new ApiError(response?.status ?? 0, "Storeguard does not answer");
  }
}

/** Exchanges the token for a session cookie. */
export async function logIn(token) {
  await ask(pathOf("session"), { method: "POST", body: { token } });
  session += 1;
}

/** Forgets the session. */
export async function logOut() {
  await ask(pathOf("session"), { method: "DELETE" });
}

function keepTime(response) {
  const theirs = Date.parse(response.headers.get("Date") ?? "");
  if (Number.isNaN(theirs)) return;
  const difference = theirs + 500 - Date.now(); // the header has whole seconds
  ahead_ms = Math.abs(difference) > 2000 ? difference : 0;
}

async function refusal(response, path, asked) {
  let detail = response.statusText || `error ${response.status}`;
  try {
    const problem = await response.json();
    if (typeof problem.detail === "string") detail = problem.detail;
  } catch {
    // No problem document: the status has to do.
  }
  // What was asked before a sign-in and is refused after it says nothing about that sign-in.
  if (response.status === 401 && path !== pathOf("session") && asked === session) {
    for (const listener of onUnauthorized) listener();
  }
  return new ApiError(response.status, detail);
}
