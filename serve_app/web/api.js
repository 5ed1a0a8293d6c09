/** The HTTP API: JSON in and out, problem details as errors, event streams that resume. */

import { apiKey } from "./store.js";

/**
 * @typedef {object} Citation
 * @property {number} marker
 * @property {string} chunk_id
 * @property {string} document_id
 * @property {string} title
 * @property {string[]} headings
 * @property {string} quote
 * @property {string | null} [url]
 * @property {string | null} [version]
 *
 * @typedef {object} Hit
 * @property {string} chunk_id
 * @property {string} document_id
 * @property {number} score
 * @property {string} text
 * @property {string} title
 * @property {string[]} headings
 * @property {number} start
 * @property {number} end
 * @property {string} source
 * @property {string} source_type
 * @property {string} external_id
 * @property {string | null} [url]
 * @property {string | null} [version]
 * @property {number | null} [dense]
 * @property {number | null} [sparse]
 * @property {[number, number][]} [highlights]
 *
 * @typedef {{event: string, id: string, data: string}} ServerEvent
 */

/** An RFC 9457 problem, or what comes closest to one when the server could not be reached. */
export class ApiError extends Error {
  /** @param {Record<string, any>} problem */
  constructor(problem) {
    super(problem.detail ?? problem.title ?? "Something went wrong.");
    this.status = problem.status ?? 0;
    this.code = problem.code ?? "unknown";
    this.hint = problem.hint ?? null;
    this.requestId = problem.instance?.replace(/^urn:ai-assistant:request:/, "") ?? null;
    this.retryable = problem.retryable ?? false;
    /** @type {Record<string, any>[]} */
    this.causes = Array.isArray(problem.causes) ? problem.causes : [];
  }
}

/** @param {unknown} error */
export const isAbort = (error) => error instanceof DOMException && error.name === "AbortError";

/** @param {unknown} error */
export function asApiError(error) {
  if (error instanceof ApiError) return error;
  return new ApiError({ code: "page", detail: `The page could not do this: ${error}` });
}

/**
 * @typedef {object} Options
 * @property {string} [method]
 * @property {unknown} [body]
 * @property {AbortSignal} [signal]
 * @property {Record<string, string>} [headers]
 */

/**
 * @param {string} path relative to the page, so that a path prefix in front of it keeps working
 * @param {Options} [options]
 * @returns {Promise<Response>} whatever its status
 */
async function send(path, { method, body, signal, headers = {} } = {}) {
  const key = apiKey.get();
  try {
    return await fetch(new URL(path, document.baseURI), {
      method: method ?? (body === undefined ? "GET" : "POST"),
      headers: {
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...(key ? { authorization: `Bearer ${key}` } : {}),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw unreachable();
  }
}

const unreachable = () =>
  new ApiError({
    code: "unreachable",
    detail: "The server does not answer.",
    hint: "Run `ai-assistant status` to see what is running and `ai-assistant up` to start it.",
    retryable: true,
  });

/** @param {Response} response */
async function problemOf(response) {
  const requestId = response.headers.get("x-request-id");
  /** @type {Record<string, any>} */
  let body = {};
  try {
    body = await response.json();
  } catch {
    // A proxy in front may answer in HTML.
  }
  return new ApiError({
    detail: `The server answered ${response.status} ${response.statusText}.`,
    retryable: response.status >= 500 || response.status === 429,
    // Errors under /v1 may come in OpenAI's envelope only.
    ...(body.error?.message ? { detail: body.error.message } : {}),
    ...body,
    status: response.status,
    instance: body.instance ?? requestId,
  });
}

/**
 * @param {string} path
 * @param {Options} [options]
 * @returns {Promise<Response>} a response with a 2xx status
 */
export async function request(path, options) {
  const response = await send(path, options);
  if (!response.ok) throw await problemOf(response);
  return response;
}

/**
 * @param {string} path
 * @param {Options} [options]
 * @returns {Promise<any>}
 */
export const json = async (path, options) => (await request(path, options)).json();

/** The health report, also when a server that is not well gives it another status than 200. */
export async function health() {
  const response = await send("health");
  const copy = response.clone();
  const body = await response.json().catch(() => null);
  if (body && typeof body === "object" && "version" in body) return body;
  throw await problemOf(copy);
}

/**
 * The list in a page of results.
 *
 * @param {any} body
 * @returns {any[]}
 */
export function listOf(body) {
  if (Array.isArray(body)) return body;
  return body?.items ?? Object.values(body ?? {}).find(Array.isArray) ?? [];
}

/**
 * The events of a `text/event-stream` body, per the HTML standard: any line ending, comments ignored, an
 * unfinished event at the end dropped. Unlike there, `id` is the event's own and empty when it has none.
 *
 * @param {ReadableStream<any>} body
 * @returns {AsyncGenerator<ServerEvent>}
 */
export async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  let event = "";
  let id = "";
  /** @type {string[]} */
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      buffer += value;
      // A carriage return at the very end may be half of a line ending.
      const lines = buffer.split(/\r\n|\n|\r(?!$)/);
      buffer = lines.pop() ?? "";
      for (const line of lines) {
        if (line === "") {
          if (data.length) yield { event: event || "message", id, data: data.join("\n") };
          event = "";
          id = "";
          data = [];
          continue;
        }
        const colon = line.indexOf(":");
        const field = colon < 0 ? line : line.slice(0, colon);
        const text = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (field === "data") data.push(text);
        else if (field === "event") event = text;
        else if (field === "id") id = text;
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/**
 * One chat completion as it comes: the parsed chunks of the OpenAI wire.
 *
 * @param {{model: string, messages: {role: string, content: string}[]}} body
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<any>}
 */
export async function* streamChat(body, signal) {
  const response = await request("v1/chat/completions", {
    body: { ...body, stream: true, stream_options: { include_usage: true } },
    signal,
  });
  const requestId = response.headers.get("x-request-id");
  try {
    for await (const { event, data } of readEvents(/** @type {any} */ (response.body))) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (event === "error" || chunk.error) {
        const cause = chunk.error ?? chunk;
        throw new ApiError({ instance: requestId, detail: cause.message, retryable: true, ...cause });
      }
      yield chunk;
    }
  } catch (error) {
    if (isAbort(error) || error instanceof ApiError) throw error;
  }
  throw brokenOff(requestId);
}

/** @param {string | null} requestId */
const brokenOff = (requestId) =>
  new ApiError({
    code: "broken_off",
    detail: "The answer broke off before it was complete.",
    hint: "Try again; the server may have restarted.",
    instance: requestId,
    retryable: true,
  });

/** @param {number} ms @param {AbortSignal} signal */
const pause = (ms, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });

/**
 * Follow an event stream until `handle` says that it is over. A broken connection is taken up again after the
 * last event seen.
 *
 * @param {string} path
 * @param {(event: ServerEvent) => boolean} handle true when this was the last event
 * @param {AbortSignal} signal
 * @param {() => Promise<boolean>} isOver asked when the stream ends without a last event; false means try again
 */
export async function follow(path, handle, signal, isOver) {
  let last = "";
  let failures = 0;
  for (;;) {
    try {
      const headers = { accept: "text/event-stream", ...(last ? { "last-event-id": last } : {}) };
      const response = await request(path, { signal, headers });
      if (response.status === 204) return;
      for await (const event of readEvents(/** @type {any} */ (response.body))) {
        failures = 0;
        last = event.id || last;
        if (handled(handle, event)) return;
      }
    } catch (error) {
      if (signal.aborted || (error instanceof ApiError && !error.retryable)) throw error;
    }
    if (await isOver()) return;
    failures += 1;
    await pause(Math.min(500 * 2 ** (failures - 1), 10_000), signal);
  }
}

/**
 * @param {(event: ServerEvent) => boolean} handle
 * @param {ServerEvent} event
 */
function handled(handle, event) {
  try {
    return handle(event);
  } catch (error) {
    // Not the connection's fault, so trying again would only repeat it.
    throw asApiError(error);
  }
}
