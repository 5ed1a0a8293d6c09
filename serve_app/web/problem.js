/** How errors look: what happened, what to do, the request id for whoever reads the logs, and another try. */

import { asApiError } from "./api.js";
import { copyButton } from "./copy.js";
import { h } from "./dom.js";
import { icon } from "./icons.js";
import { apiKey } from "./store.js";

/**
 * @param {unknown} error
 * @param {() => void} [retry]
 * @returns {HTMLElement}
 */
export function problemPanel(error, retry) {
  const problem = asApiError(error);
  return h(
    "div",
    { class: "problem", role: "alert" },
    icon("alert"),
    h(
      "div",
      { class: "problem-body" },
      h("p", { class: "problem-detail" }, problem.message),
      problem.hint && h("p", { class: "problem-hint" }, problem.hint),
      problem.causes.length > 0 &&
        h(
          "ul",
          { class: "problem-causes" },
          problem.causes.map((cause) => h("li", {}, causeText(cause))),
        ),
      problem.status === 401 && keyForm(retry),
      h(
        "div",
        { class: "problem-foot" },
        retry &&
          h("button", { class: "button small", type: "button", onclick: retry }, icon("retry"), "Try again"),
        problem.requestId && h("span", { class: "request-id" }, "Request ", h("code", {}, problem.requestId)),
        problem.requestId && copyButton(() => problem.requestId, "Copy request id"),
      ),
    ),
  );
}

/** @param {Record<string, any>} cause */
const causeText = (cause) =>
  [cause.backend ?? cause.model, cause.detail ?? cause.message ?? cause.code].filter(Boolean).join(": ");

/** @param {(() => void) | undefined} retry */
function keyForm(retry) {
  const input = h("input", {
    type: "password",
    class: "input",
    "aria-label": "API key",
    autocomplete: "off",
    placeholder: "API key",
  });
  /** @param {Event} event */
  const use = (event) => {
    event.preventDefault();
    apiKey.set(input.value.trim() || null);
    if (retry) retry();
    else location.reload();
  };
  return h(
    "form",
    { class: "key-form", onsubmit: use },
    input,
    h("button", { class: "button small primary" }, "Use key"),
  );
}
