/** The drawer with one passage: exactly what was found, what stands around it, and where it comes from. */

import { json } from "./api.js";
import { copyButton } from "./copy.js";
import { h, highlighted, replace } from "./dom.js";
import { count, path, webAddress } from "./format.js";
import { icon } from "./icons.js";
import { problemPanel } from "./problem.js";

/** @typedef {import("./api.js").Citation} Citation */
/** @typedef {import("./api.js").Hit} Hit */

const drawer = /** @type {HTMLDialogElement} */ (document.getElementById("passage"));
let loading = new AbortController();

/** What the drawer walks through: the passages of the list that it was opened from. */
/** @type {{chunk: string, quote?: string, label: string}[]} */
let siblings = [];
let position = 0;

/**
 * @param {string} chunk
 * @param {[number, number][]} [ranges] highlights in its text
 */
export function openPassage(chunk, ranges) {
  siblings = [{ chunk, label: "Passage" }];
  return open(0, ranges);
}

/**
 * @param {Citation[]} citations
 * @param {number} marker
 */
export function openCitation(citations, marker) {
  siblings = citations.map((c) => ({ chunk: c.chunk_id, quote: c.quote, label: `Citation ${c.marker}` }));
  return open(
    Math.max(
      0,
      citations.findIndex((c) => c.marker === marker),
    ),
  );
}

/**
 * @param {number} index
 * @param {[number, number][]} [ranges]
 */
async function open(index, ranges) {
  position = index;
  const { chunk, quote } = siblings[index];
  loading.abort();
  loading = new AbortController();
  const { signal } = loading;
  if (!drawer.open) {
    frame(h("p", { class: "muted", role: "status" }, "Opening the passage…"));
    drawer.showModal();
  }
  drawer.setAttribute("aria-busy", "true");
  try {
    const passage = await json(`api/v1/chunks/${encodeURIComponent(chunk)}`, { signal });
    if (!signal.aborted) show(passage, quote, ranges);
  } catch (error) {
    if (!signal.aborted) frame(problemPanel(error, () => open(index, ranges)));
  } finally {
    if (!signal.aborted) drawer.removeAttribute("aria-busy");
  }
}

/** @param {Node} content */
function frame(content) {
  const step = (/** @type {number} */ by, /** @type {string} */ label, /** @type {string} */ name) =>
    h(
      "button",
      {
        class: "ghost square",
        type: "button",
        "aria-label": label,
        title: label,
        disabled: !siblings[position + by],
        onclick: () => open(position + by),
      },
      icon(name),
    );
  const focused = drawer.contains(document.activeElement)
    ? document.activeElement?.getAttribute("aria-label")
    : null;
  replace(
    drawer,
    h(
      "div",
      { class: "drawer-bar" },
      h("span", { class: "drawer-label" }, siblings[position].label),
      siblings.length > 1 && step(-1, "Previous citation", "left"),
      siblings.length > 1 && step(1, "Next citation", "right"),
      h(
        "button",
        {
          class: "ghost square",
          type: "button",
          "aria-label": "Close",
          title: "Close (Esc)",
          onclick: () => drawer.close(),
        },
        icon("close"),
      ),
    ),
    content,
  );
  if (focused)
    /** @type {HTMLElement | null} */ (
      drawer.querySelector(`[aria-label="${focused}"]:not(:disabled)`)
    )?.focus();
}

/**
 * @param {{hit: Hit, before: string[], after: string[]}} passage
 * @param {string} [quote]
 * @param {[number, number][]} [ranges]
 */
function show({ hit, before, after }, quote, ranges) {
  const address = webAddress(hit.url);
  const around = (/** @type {string[]} */ texts) =>
    texts.map((text) => h("p", { class: "passage-around" }, text));
  frame(
    h(
      "article",
      { class: "drawer-body" },
      h("h2", { id: "passage-title" }, hit.title || hit.external_id),
      hit.headings.length > 0 && h("p", { class: "path" }, path(hit.headings)),
      h(
        "p",
        { class: "meta" },
        h("span", { class: "badge" }, hit.source_type),
        h("span", {}, hit.source),
        hit.version && h("span", {}, `version ${hit.version}`),
        h("span", {}, `characters ${count(hit.start)}–${count(hit.end)}`),
      ),
      h(
        "p",
        { class: "drawer-actions" },
        address
          ? h(
              "a",
              { class: "button small", href: address, target: "_blank", rel: "noopener noreferrer" },
              icon("link"),
              "Open the source",
            )
          : h("code", { class: "where" }, hit.url || hit.external_id),
        copyButton(() => hit.text, "Copy the passage", { visible: true }),
      ),
      h(
        "div",
        { class: "passage-text" },
        around(before),
        h(
          "blockquote",
          { class: "passage-exact", "aria-label": "The passage" },
          highlighted(hit.text, ranges ?? quoteRange(hit.text, quote)),
        ),
        around(after),
      ),
    ),
  );
  drawer.querySelector(".passage-exact")?.scrollIntoView({ block: "nearest" });
}

/**
 * @param {string} text
 * @param {string} [quote]
 * @returns {[number, number][]}
 */
function quoteRange(text, quote) {
  const at = quote ? text.indexOf(quote) : -1;
  if (!quote || at < 0 || quote.length === text.length) return [];
  const start = Array.from(text.slice(0, at)).length;
  return [[start, start + Array.from(quote).length]];
}

drawer.addEventListener("click", (event) => {
  if (event.target === drawer) drawer.close();
});
drawer.addEventListener("close", () => loading.abort());
drawer.addEventListener("keydown", (event) => {
  const by = event.key === "ArrowLeft" ? -1 : event.key === "ArrowRight" ? 1 : 0;
  if (by && siblings[position + by]) open(position + by);
});
