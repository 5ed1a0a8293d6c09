/** Models: which adapters serve, why, and how the next one comes about. */

import { asApiError, isAbort, json, listOf } from "../api.js";
import { announce } from "../announce.js";
import { confirmed } from "../confirm.js";
import { h, replace } from "../dom.js";
import { ago, count, date, plural, webAddress } from "../format.js";
import { icon } from "../icons.js";
import { histogram } from "../plots.js";
import { problemPanel } from "../problem.js";
import { hasDecision, lineage, measurements, verdict } from "./models_lineage.js";
import { runList } from "./models_runs.js";

const REFRESH_MS = 10_000;
const CONFIRM = "models-confirm";
const ALIASES = /** @type {const} */ (["champion", "challenger", "previous"]);
const MEANING = /** @type {Record<string, string>} */ ({
  champion: "Serves",
  challenger: "Is being tried",
  previous: "Served before",
});

/** @returns {import("../app.js").View} */
export function modelsView() {
  let control = new AbortController();
  /** @type {number | undefined} */
  let timer;
  let shown = false;

  const trouble = h("div", {});
  const learning = h("div", {}, skeleton());
  const models = h("div", {});
  const runs = runList(() => load());
  const tools = h("div", { class: "tools" });
  const dialog = h("dialog", { class: "modal", "aria-labelledby": CONFIRM });
  const element = h(
    "section",
    { class: "view view-models" },
    h("header", { class: "view-head with-tools" }, h("h1", {}, "Models"), tools),
    trouble,
    learning,
    models,
    runs.element,
    dialog,
  );

  async function load() {
    clearTimeout(timer);
    control.abort();
    control = new AbortController();
    const { signal } = control;
    try {
      const [stats, deployments] = await Promise.all([
        json("api/v1/learning/stats", { signal }),
        json("api/v1/learning/deployments", { signal }),
      ]);
      trouble.replaceChildren();
      draw(stats, listOf(deployments));
    } catch (error) {
      if (isAbort(error)) return;
      if (learning.querySelector(".skeleton")) learning.replaceChildren();
      replace(trouble, problemPanel(error, load));
    }
    if (shown) timer = setTimeout(load, REFRESH_MS);
  }

  /** @param {any} stats @param {any[]} found */
  function draw(stats, found) {
    const mlflow = webAddress(stats.mlflow_url);
    const focused = /** @type {HTMLElement | null} */ (document.activeElement)?.dataset?.action;
    replace(
      tools,
      mlflow &&
        h(
          "a",
          { class: "button small", href: mlflow, target: "_blank", rel: "noopener" },
          icon("link"),
          "MLflow",
        ),
      h(
        "button",
        {
          class: "button small primary",
          type: "button",
          "data-action": "run",
          disabled: Boolean(stats.next_run.running),
          title: stats.next_run.running ? "A run is in work" : "Learn from the feedback now",
          onclick: () => act("api/v1/learning/runs", "Run started"),
        },
        icon("spark"),
        "Start a run",
      ),
    );
    replace(learning, nextRun(stats));
    const open = new Set(
      [...models.querySelectorAll("details[open]")].map((d) => d.getAttribute("data-key")),
    );
    replace(
      models,
      found.map((model) => modelCard(model, mlflow)),
    );
    for (const details of models.querySelectorAll("details"))
      if (open.has(details.getAttribute("data-key"))) details.open = true;
    // A refresh must not take the keyboard away from where it is.
    if (focused) focusOn(element.querySelector(`[data-action="${CSS.escape(focused)}"]`));
    runs.show(stats.runs ?? []);
  }

  /** @param {string} path @param {string} done @param {unknown} [body] */
  async function act(path, done, body = {}) {
    try {
      await json(path, { method: "POST", body });
      announce(done);
      trouble.replaceChildren();
      await load();
    } catch (error) {
      replace(trouble, problemPanel(asApiError(error)));
    }
  }

  /** @param {string} path @param {string} model @param {string} adapter */
  async function promote(path, model, adapter) {
    const text =
      `${adapter} becomes the champion of ${model} and answers all requests. ` +
      "What serves now is kept as the previous one.";
    const question = { id: CONFIRM, title: `Promote ${adapter}?`, text, verb: "Promote" };
    if (await confirmed(dialog, question)) await act(`${path}/promote`, `${adapter} promoted`, { adapter });
  }

  /** @param {string} path @param {string} back @param {string | null} adapter that serves now */
  async function rollBack(path, back, adapter) {
    const text = `${back} answers again within seconds. Requests in work finish undisturbed.`;
    const question = { id: CONFIRM, title: `Roll back to ${back}?`, text, verb: "Roll back" };
    if (await confirmed(dialog, question))
      await act(`${path}/rollback`, `Rolled back to ${back}`, { adapter });
  }

  /** @param {any} model @param {string | null} mlflow */
  function modelCard(model, mlflow) {
    const { champion, challenger, previous } = model;
    const path = `api/v1/learning/deployments/${encodeURIComponent(model.model)}`;
    const back = previous?.adapter ?? (previous || champion?.adapter ? "the base model" : null);
    return h(
      "section",
      { class: "model card", "aria-label": model.model },
      h(
        "header",
        { class: "model-head" },
        h("h2", {}, model.model),
        h(
          "div",
          { class: "tools" },
          challenger &&
            h(
              "button",
              {
                class: "button small",
                type: "button",
                "data-action": `promote ${model.model}`,
                onclick: () => promote(path, model.model, challenger.adapter),
              },
              "Promote",
            ),
          back &&
            h(
              "button",
              {
                class: "button small danger",
                type: "button",
                "data-action": `rollback ${model.model}`,
                onclick: () => rollBack(path, back, champion?.adapter ?? null),
              },
              "Roll back",
            ),
        ),
      ),
      problemsOf(model),
      h(
        "ul",
        { class: "aliases" },
        ALIASES.map((alias) => aliasLine(alias, model[alias], mlflow)),
      ),
      measurements({ champion, challenger, previous }),
      verdict([challenger, ...(model.history ?? []), champion].find(hasDecision)),
      [champion, challenger, previous]
        .filter((record) => record?.adapter)
        .map((record) => lineage(record, `${model.model} ${record.alias}`)),
      history(model),
    );
  }

  return {
    element,
    title: "Models",
    show() {
      shown = true;
      load();
    },
    hide() {
      shown = false;
      clearTimeout(timer);
      control.abort();
      runs.hide();
    },
    focus() {},
  };
}

const skeleton = () => h("div", { class: "skeleton", "aria-hidden": "true" }, h("i"), h("i"));

/** @param {any} stats */
function nextRun({ feedback, examples, next_run: next }) {
  const share = Math.min(next.new_examples, next.needed);
  return h(
    "section",
    { class: "card learning", "aria-label": "Learning" },
    h(
      "div",
      { class: "learning-next" },
      h("h2", {}, "Next run"),
      h(
        "p",
        { class: "learning-count" },
        h("strong", { class: "number" }, `${count(next.new_examples)} of ${count(next.needed)}`),
        " new examples",
      ),
      h("progress", { max: next.needed, value: share, "aria-label": "New examples until the next run" }),
      h("p", { class: "muted" }, whenText(next)),
    ),
    h(
      "dl",
      { class: "learning-figures" },
      [
        ["Opinions", count(feedback.total)],
        ["Corrections", count(feedback.edits)],
        ["Examples", count(examples.total)],
        ["Usable", count(examples.usable)],
      ].map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { class: "number" }, value))),
    ),
    examples.total > 0 && histogram(examples.quality, "Quality of examples"),
  );
}

/** @param {any} next */
function whenText(next) {
  if (next.running) return "A run is in work.";
  if (!next.automatic) return "Runs start by hand only (learning.automatic is off).";
  if (next.due) return `Due now: ${next.due}.`;
  if (!next.new_examples) return "Rate an answer, a search result or an RFC: that is what it learns from.";
  const missing = `${plural(next.missing, "more starts", "more start")} it`;
  return next.due_at ? `${missing}; without them it starts ${date(next.due_at)}.` : `${missing}.`;
}

/** @param {string} alias @param {any} record @param {string | null} mlflow */
function aliasLine(alias, record, mlflow) {
  const name = record ? (record.adapter ?? "Base model") : alias === "champion" ? "Base model" : "None";
  const address = record?.adapter && mlflow ? registryAddress(mlflow, record) : null;
  return h(
    "li",
    { class: `alias ${record || alias === "champion" ? "" : "none"}`, "data-alias": alias },
    h("span", { class: `alias-dot ${alias}`, "aria-hidden": "true" }),
    h("span", { class: "alias-role" }, alias, h("span", { class: "alias-meaning" }, MEANING[alias])),
    h("strong", { class: "alias-name" }, name),
    h(
      "span",
      { class: "alias-facts" },
      [
        alias === "challenger" && record && `${Math.round(record.share * 100)} % of the requests`,
        record?.decided_by && `by ${record.decided_by}`,
        record && since(record.created_at),
        address && h("a", { href: address, target: "_blank", rel: "noopener" }, "in MLflow"),
      ]
        .filter(Boolean)
        .flatMap((part, n) => (n ? [" · ", part] : [part])),
    ),
  );
}

/** @param {string} at */
const since = (at) => h("time", { datetime: at, title: date(at) }, ago(at));

/** @param {Element | null} element */
const focusOn = (element) => /** @type {HTMLElement | null} */ (element)?.focus();

/** @param {string} mlflow @param {any} record */
function registryAddress(mlflow, record) {
  const named = record.adapter.match(/^(.+)-(\d+)$/);
  const version = record.registry_version ?? named?.[2];
  if (!named || !version) return null;
  const base = mlflow.replace(/\/+$/, "");
  return `${base}/#/models/${encodeURIComponent(named[1])}/versions/${encodeURIComponent(version)}`;
}

/** @param {any} model */
function problemsOf(model) {
  const problems = Object.entries(model.serving?.problems ?? {});
  if (!problems.length) return null;
  return h(
    "ul",
    { class: "banner" },
    problems.map(([name, why]) => h("li", {}, `${name} could not be loaded: ${why}`)),
  );
}

/** @param {any} model */
function history(model) {
  const records = /** @type {any[]} */ (model.history ?? []);
  if (!records.length) return null;
  return h(
    "details",
    { class: "more", "data-key": `${model.model} history` },
    h("summary", {}, `History (${records.length})`),
    h(
      "ul",
      { class: "history" },
      records.map((record) =>
        h(
          "li",
          {},
          h("time", { datetime: record.created_at }, date(record.created_at)),
          h("span", {}, record.adapter ?? "Base model"),
          h("span", { class: "label" }, record.decision.replaceAll("_", " ")),
          h("span", { class: "muted" }, record.decided_by ?? ""),
        ),
      ),
    ),
  );
}
