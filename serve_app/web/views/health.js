/** Health: what the system is made of right now, refreshed by itself. */

import { h, replace } from "../dom.js";
import { count, duration, span, words } from "../format.js";
import { icon } from "../icons.js";
import { refresh, subscribe, watchClosely } from "../monitor.js";
import { problemPanel } from "../problem.js";

const GOOD = new Set(["ok", "ready", "up", "healthy"]);
const MIDDLE = new Set(["loading", "degraded", "starting", "unknown", "disabled"]);

/** @param {string} state */
export const tone = (state) => (GOOD.has(state) ? "good" : MIDDLE.has(state) ? "middle" : "bad");

const VERDICT = { good: "All systems work", middle: "Working, with limits", bad: "Something is down" };

/** @returns {import("../app.js").View} */
export function healthView() {
  const body = h(
    "div",
    { class: "health" },
    h("div", { class: "skeleton", "aria-hidden": "true" }, h("i"), h("i")),
  );
  const updated = h("span", { class: "muted number" });
  const element = h(
    "section",
    { class: "view view-health" },
    h(
      "header",
      { class: "view-head with-tools" },
      h("h1", {}, "Health"),
      h(
        "div",
        { class: "tools" },
        updated,
        h(
          "button",
          { class: "button small", type: "button", onclick: () => refresh() },
          icon("retry"),
          "Refresh",
        ),
      ),
    ),
    body,
  );

  subscribe(({ report, error, at }) => {
    updated.textContent = at ? `Updated ${at.toLocaleTimeString("en-GB")}` : "";
    if (error)
      replace(
        body,
        problemPanel(error, () => refresh()),
        report && h("div", { class: "stale" }, drawn(report)),
      );
    else if (report) replace(body, drawn(report));
  });

  return {
    element,
    title: "Health",
    show: () => watchClosely(true),
    hide: () => watchClosely(false),
    focus() {},
  };
}

/** @param {any} report */
function drawn(report) {
  const state = tone(report.status);
  const checks = Object.entries(report.checks ?? {});
  const models = report.models ?? [];
  return [
    h(
      "div",
      { class: `verdict ${state}` },
      h("span", { class: "dot" }),
      h("strong", {}, VERDICT[state]),
      h(
        "span",
        { class: "muted" },
        `version ${report.version}`,
        report.uptime_s !== undefined && ` · up ${span(report.uptime_s)}`,
      ),
    ),
    h(
      "div",
      { class: "figures" },
      Object.entries(report.counts ?? {}).map(([name, value]) =>
        h(
          "div",
          { class: "figure" },
          h("span", { class: "figure-value number" }, count(/** @type {number} */ (value))),
          h("span", { class: "figure-name" }, words(name)),
        ),
      ),
    ),
    !checks.length && h("p", { class: "muted" }, "The details are shown to callers with an API key only."),
    checks.length > 0 && h("h2", {}, "Dependencies"),
    checks.length > 0 &&
      h(
        "ul",
        { class: "checks" },
        checks.map(([name, check]) => line(name, check)),
      ),
    models.length > 0 && h("h2", {}, "Models"),
    models.length > 0 && h("ul", { class: "checks" }, models.map(modelLine)),
  ];
}

/** @param {string} name @param {any} check */
function line(name, check) {
  return h(
    "li",
    { class: `check ${tone(check.state)}` },
    h("span", { class: "dot" }),
    h("span", { class: "check-name" }, name),
    h("span", { class: "check-detail" }, typeof check.detail === "string" ? check.detail : ""),
    h("span", { class: "check-state" }, check.state),
    h("span", { class: "check-latency number" }, duration(check.latency_ms)),
  );
}

/** @param {any} model */
function modelLine(model) {
  if (typeof model === "string")
    return h("li", { class: "check" }, h("span", { class: "check-name" }, model));
  const details = [
    model.engine,
    model.context_tokens && `${count(model.context_tokens)} tokens of context`,
    model.detail,
  ];
  const state = model.state ?? "";
  return h(
    "li",
    { class: `check ${state ? tone(state) : ""}` },
    h("span", { class: "dot" }),
    h("span", { class: "check-name" }, model.name ?? model.model ?? model.id),
    h("span", { class: "check-detail" }, details.filter(Boolean).join(" · ")),
    h("span", { class: "check-state" }, state),
    h("span", { class: "check-latency number" }, duration(model.latency_ms)),
  );
}
