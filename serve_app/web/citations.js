/** The list of sources under a text, and the links between its markers and the passages. */

import { h } from "./dom.js";
import { path } from "./format.js";
import { openCitation } from "./passage.js";

/** @typedef {import("./api.js").Citation} Citation */

/**
 * @param {Citation[]} citations
 * @returns {HTMLElement | null}
 */
export function sourceList(citations) {
  if (!citations.length) return null;
  return h(
    "section",
    { class: "sources", "aria-label": "Sources" },
    h("h3", {}, "Sources"),
    h(
      "ol",
      {},
      citations.map((c) =>
        h(
          "li",
          {},
          h(
            "button",
            {
              class: "source",
              type: "button",
              "data-marker": c.marker,
              onclick: () => openCitation(citations, c.marker),
            },
            h("span", { class: "source-marker" }, c.marker),
            h(
              "span",
              { class: "source-text" },
              h("span", { class: "source-title" }, c.title),
              c.headings.length > 0 && h("span", { class: "path" }, path(c.headings)),
              h("span", { class: "source-quote" }, c.quote),
            ),
          ),
        ),
      ),
    ),
  );
}

/**
 * Make the `[n]` links inside `element` open their passages.
 *
 * @param {HTMLElement} element
 * @param {Citation[]} citations
 */
export function linkMarkers(element, citations) {
  for (const link of element.querySelectorAll("a.citation")) {
    const marker = link.getAttribute("data-marker") ?? "";
    link.textContent = marker;
    link.setAttribute("aria-label", `Citation ${marker}: ${link.getAttribute("title") ?? ""}`);
    link.addEventListener("click", (event) => {
      const { metaKey, ctrlKey, shiftKey } = /** @type {MouseEvent} */ (event);
      if (metaKey || ctrlKey || shiftKey) return;
      event.preventDefault();
      openCitation(citations, Number(marker));
    });
  }
}
