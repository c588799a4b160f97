// The HTTP API's client: JSON responses, problem+json errors, and the server's clock.

const BASE = "/api/v1";
const ANSWER_MS = 20000;

let ahead_ms = 0; // the server's clock less ours
let session = 0; // number of sign-ins so far
const onUnauthorized = new Set();

/** A response that is an error, or none at all (`status` 0). */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.name = "ApiError";
    this.status = status;
  }
}

/** Calls back whenever the API refuses a request for want of a token. */
export function whenUnauthorized(listener) {
  onUnauthorized.add(listener);
}

/** Milliseconds since 1970 by the server's clock, which also dates the events. */
export function serverNow() {
  return Date.now() + ahead_ms;
}

/** The path of something below /api/v1, each part escaped. */
export function pathOf(...parts) {
  return `${BASE}/${parts.map(encodeURIComponent).join("/")}`;
}

/** Sends a request and returns the response; throws ApiError for errors. */
export async function request(path, { method = "GET", body, signal } = {}) {
  const limits = [signal, AbortSignal.timeout(ANSWER_MS)].filter(Boolean);
  const sentIn = session;
  let response;
  try {
    response = await fetch(path, {
      method,
      cache: "no-store",
      credentials: "same-origin",
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.any(limits),
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "Storeguard does not answer");
  }
  keepTime(response);
  if (!response.ok) throw await refusal(response, path, sentIn);
  return response;
}

/** The JSON of a response; `query` holds query parameters, of which empty ones are left out. */
export async function get(path, query = {}, { signal } = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value != null);
  const search = new URLSearchParams(given).toString();
  return (await request(search ? `${path}?${search}` : path, { signal })).json();
}

/** /healthz, whose 503 is a response too. */
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
  await request(pathOf("session"), { method: "POST", body: { token } });
  session += 1;
}

/** Ends the session. */
export async function logOut() {
  await request(pathOf("session"), { method: "DELETE" });
}

function keepTime(response) {
  const theirs = Date.parse(response.headers.get("Date") ?? "");
  if (Number.isNaN(theirs)) return;
  const difference = theirs + 500 - Date.now(); // the header has whole seconds
  ahead_ms = Math.abs(difference) > 2000 ? difference : 0;
}

async function refusal(response, path, sentIn) {
  let detail = response.statusText || `error ${response.status}`;
  try {
    const problem = await response.json();
    if (typeof problem.detail === "string") detail = problem.detail;
  } catch {
    // No problem document: the status stands for it.
  }
  // A request sent before a sign-in may be refused after it; that concerns the session before.
  if (response.status === 401 && path !== pathOf("session") && sentIn === session) {
    for (const listener of onUnauthorized) listener();
  }
  return new ApiError(response.status, detail);
}
