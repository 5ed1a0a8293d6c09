/** Search: a question in, passages out, with the parts of their scores for who wants to know. */

import { isAbort, json, listOf } from "../api.js";
import { announce } from "../announce.js";
import { h, highlighted, replace } from "../dom.js";
import { feedbackBar } from "../feedback.js";
import { duration, path, plural, words } from "../format.js";
import { icon } from "../icons.js";
import { openPassage } from "../passage.js";
import { problemPanel } from "../problem.js";

/** @typedef {import("../api.js").Hit} Hit */

const EXAMPLES = [
  "persistent volume is filling up",
  "how are alerts grouped and silenced",
  "retention of raw and downsampled data",
];
const MODES = [
  ["hybrid", "Hybrid", "Meaning and words together"],
  ["dense", "Meaning", "Dense vectors only: finds other wordings"],
  ["sparse", "Words", "BM25 only: finds exact terms and names"],
];
const PAGE = 10;
const MOST = 50;
const LEAD = 90;

/** @returns {import("../app.js").View} */
export function searchView() {
  const state = { query: "", mode: "hybrid", types: /** @type {string[]} */ ([]), limit: PAGE };
  let shown = "";
  let running = new AbortController();

  const input = h("input", {
    class: "input big",
    type: "search",
    id: "search-box",
    name: "q",
    placeholder: "Search runbooks, docs and designs",
    "aria-label": "Search",
    autocomplete: "off",
    enterkeyhint: "search",
    spellcheck: "false",
  });
  const results = h("div", { class: "results", "aria-live": "off" });
  const filters = h("div", { class: "chips", role: "group", "aria-label": "Source types" });
  const modes = h("div", { class: "segmented", role: "group", "aria-label": "Search mode" });

  const form = h(
    "form",
    {
      class: "search-form",
      role: "search",
      onsubmit: (/** @type {Event} */ e) => {
        e.preventDefault();
        go({ query: input.value.trim(), limit: PAGE });
      },
    },
    h("div", { class: "search-field" }, icon("search"), input, h("kbd", { class: "field-key" }, "/")),
    h("div", { class: "search-tools" }, modes, filters),
  );
  const element = h(
    "section",
    { class: "view view-search" },
    h(
      "header",
      { class: "view-head" },
      h("h1", {}, "Search"),
      h("p", { class: "muted" }, "Every passage of every connected source that you may read."),
    ),
    form,
    results,
  );

  /** @param {Partial<typeof state>} change */
  function go(change) {
    const next = { ...state, ...change };
    const address = addressOf(next);
    if (location.hash === address) run(true);
    else location.hash = address;
  }

  /** @param {typeof state} s */
  function addressOf(s) {
    const parameters = new URLSearchParams();
    if (s.query) parameters.set("q", s.query);
    if (s.mode !== "hybrid") parameters.set("mode", s.mode);
    for (const type of s.types) parameters.append("type", type);
    if (s.limit !== PAGE) parameters.set("limit", String(s.limit));
    return `#/search${parameters.size ? `?${parameters}` : ""}`;
  }

  function drawModes() {
    replace(
      modes,
      MODES.map(([name, label, title]) =>
        h(
          "button",
          {
            type: "button",
            title,
            "aria-pressed": String(state.mode === name),
            onclick: () => go({ mode: name }),
          },
          label,
        ),
      ),
    );
  }

  /** @type {string[]} */
  let types = [];
  function drawFilters() {
    replace(
      filters,
      [...new Set([...types, ...state.types])].map((type) => {
        const on = state.types.includes(type);
        const next = on ? state.types.filter((t) => t !== type) : [...state.types, type];
        return h(
          "button",
          {
            class: "chip",
            type: "button",
            "aria-pressed": String(on),
            onclick: () => go({ types: next, limit: PAGE }),
          },
          words(type),
        );
      }),
    );
  }

  async function loadTypes() {
    if (types.length) return;
    try {
      const sources = listOf(await json("api/v1/sources"));
      types = [...new Set(sources.map((s) => s.source_type).filter(Boolean))].sort();
      drawFilters();
    } catch {
      // The filters are a convenience; a server in trouble says so in the results.
    }
  }

  /** @param {boolean} [again] */
  async function run(again = false) {
    const address = addressOf(state);
    if (shown === address && !again) return;
    shown = address;
    running.abort();
    running = new AbortController();
    const { signal } = running;
    if (!state.query) {
      replace(results, empty());
      return;
    }
    results.setAttribute("aria-busy", "true");
    if (!results.querySelector(".hit"))
      replace(results, h("div", { class: "skeleton", "aria-hidden": "true" }, h("i"), h("i"), h("i")));
    try {
      const found = await json("api/v1/search", {
        signal,
        body: {
          query: state.query,
          limit: state.limit,
          mode: state.mode,
          ...(state.types.length ? { filters: { source_type: state.types } } : {}),
        },
      });
      draw(found);
    } catch (error) {
      if (isAbort(error)) return;
      shown = "";
      replace(
        results,
        problemPanel(error, () => run(true)),
      );
    } finally {
      if (!signal.aborted) results.removeAttribute("aria-busy");
    }
  }

  /** @param {{query_id?: string, hits: Hit[], took_ms: number, timings_ms?: Record<string, number>}} found */
  function draw(found) {
    if (!found.hits.length) {
      replace(results, nothing());
      announce("No passage found");
      return;
    }
    const most = Math.max(...found.hits.map((hit) => hit.sparse ?? 0), 1e-9);
    const steps = Object.entries(found.timings_ms ?? {}).map(
      ([step, ms]) => `${words(step)} ${duration(ms)}`,
    );
    replace(
      results,
      h(
        "p",
        { class: "results-head" },
        h("strong", {}, plural(found.hits.length, "passage")),
        ` in ${duration(found.took_ms)}`,
        steps.length > 0 && h("span", { class: "steps" }, steps.join(" · ")),
      ),
      h(
        "ol",
        { class: "hits" },
        found.hits.map((hit) => card(hit, most, found.query_id)),
      ),
      found.hits.length >= state.limit &&
        state.limit < MOST &&
        h(
          "button",
          { class: "button", type: "button", onclick: () => go({ limit: Math.min(MOST, state.limit + 20) }) },
          "Show more",
        ),
    );
    announce(`${plural(found.hits.length, "passage")} found`);
  }

  const empty = () =>
    h(
      "div",
      { class: "empty" },
      h(
        "p",
        {},
        "Ask in your own words or paste an error message. Hybrid search looks for the meaning and for the exact words.",
      ),
      h(
        "div",
        { class: "examples" },
        EXAMPLES.map((q) =>
          h(
            "button",
            { class: "example", type: "button", onclick: () => go({ query: q }) },
            icon("search"),
            q,
          ),
        ),
      ),
    );

  const nothing = () =>
    h(
      "div",
      { class: "empty" },
      h("p", {}, h("strong", {}, "No passage matches.")),
      h(
        "p",
        {},
        state.types.length || state.mode !== "hybrid"
          ? "Fewer filters or the hybrid mode may find more."
          : "Other words may help, or the document is not ingested yet. Health shows what is.",
      ),
      (state.types.length > 0 || state.mode !== "hybrid") &&
        h(
          "button",
          { class: "button", type: "button", onclick: () => go({ types: [], mode: "hybrid" }) },
          "Clear the filters",
        ),
    );

  results.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const by = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    // In a comment they write, among stars they choose.
    if (/** @type {HTMLElement} */ (event.target).closest(".feedback-panel")) return;
    if (!by || event.metaKey || event.ctrlKey || event.altKey) return;
    const links = [...results.querySelectorAll(".hit-title")];
    const at = links.findIndex((link) => link.closest(".hit")?.contains(document.activeElement));
    const next = /** @type {HTMLElement | undefined} */ (links[at + by]);
    if (at < 0 || (!next && by > 0)) return;
    event.preventDefault();
    (next ?? input).focus();
  });
  input.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const first = /** @type {HTMLElement | null} */ (results.querySelector(".hit-title"));
    if (event.key !== "ArrowDown" || !first) return;
    event.preventDefault();
    first.focus();
  });

  return {
    element,
    title: "Search",
    show({ parameters }) {
      state.query = parameters.get("q") ?? "";
      state.mode = MODES.some(([name]) => name === parameters.get("mode"))
        ? String(parameters.get("mode"))
        : "hybrid";
      state.types = parameters.getAll("type");
      state.limit = Math.min(MOST, Math.max(1, Number(parameters.get("limit")) || PAGE));
      input.value = state.query;
      drawModes();
      drawFilters();
      loadTypes();
      run();
    },
    hide() {},
    focus() {
      input.focus();
      input.select();
    },
  };
}

/**
 * @param {Hit} hit
 * @param {number} most the highest BM25 score on the page, as that scale has no end of its own
 * @param {string} [queryId]
 */
function card(hit, most, queryId) {
  const open = (/** @type {Event} */ event) => {
    event.preventDefault();
    openPassage(hit.chunk_id, hit.highlights);
  };
  const parts = h(
    "div",
    { class: "score-parts", hidden: true },
    scorePart("Meaning", hit.dense, hit.dense ?? 0),
    scorePart("Words", hit.sparse, (hit.sparse ?? 0) / most),
  );
  const toggle = h(
    "button",
    {
      class: "score",
      type: "button",
      "aria-expanded": "false",
      title: "Show the parts of the score",
      onclick: () => {
        parts.hidden = !parts.hidden;
        toggle.setAttribute("aria-expanded", String(!parts.hidden));
      },
    },
    "Score ",
    hit.score.toFixed(2),
  );
  return h(
    "li",
    { class: "hit" },
    h(
      "div",
      { class: "hit-head" },
      h(
        "a",
        { class: "hit-title", href: `#passage-${hit.chunk_id}`, onclick: open },
        hit.title || hit.external_id,
      ),
      h("span", { class: "badge" }, words(hit.source_type)),
    ),
    hit.headings.length > 0 && h("p", { class: "path" }, path(hit.headings)),
    h("p", { class: "snippet" }, snippet(hit)),
    h("div", { class: "hit-foot" }, h("span", { class: "muted" }, hit.source), toggle),
    parts,
    queryId &&
      feedbackBar({
        path: `api/v1/search/${encodeURIComponent(queryId)}/feedback`,
        what: hit.title || hit.external_id,
        part: { chunk_id: hit.chunk_id },
      }),
  );
}

/**
 * The part of the passage around its first highlight.
 *
 * @param {Hit} hit
 */
function snippet(hit) {
  const ranges = hit.highlights ?? [];
  const first = Math.min(...ranges.map(([start]) => start));
  if (!Number.isFinite(first) || first < 2 * LEAD) return highlighted(hit.text, ranges);
  const points = Array.from(hit.text);
  let from = first - LEAD;
  while (from < first && !/\s/.test(points[from])) from += 1;
  const moved = ranges.map(([a, b]) => /** @type {[number, number]} */ ([a - from, b - from]));
  return ["…", ...highlighted(points.slice(from).join(""), moved)];
}

/**
 * @param {string} label
 * @param {number | null | undefined} value
 * @param {number} share of the bar, 0 to 1
 */
function scorePart(label, value, share) {
  const bar = h("span", { class: "bar-fill" });
  bar.style.width = `${Math.round(100 * Math.min(1, Math.max(0, share)))}%`;
  return h(
    "div",
    { class: "score-part" },
    h("span", {}, label),
    h("span", { class: "bar", "aria-hidden": "true" }, bar),
    h("span", { class: "number" }, value === null || value === undefined ? "not found" : value.toFixed(3)),
  );
}
