/** Feedback on a finished RFC: below each section that somebody could have written, and below the whole. */

import { isAbort, json, listOf } from "../api.js";
import { h, replace } from "../dom.js";
import { feedbackBar } from "../feedback.js";

/** Sections that the machine lists: nobody could have written them better. */
const LISTED = /^(appendix|references|open questions)/i;

/**
 * The sections of a document by title, without what the machine lists.
 *
 * @param {string} markdown
 * @returns {Map<string, string>}
 */
function sectionsOf(markdown) {
  const found = new Map();
  let fence = "";
  /** @type {string[] | null} */
  let lines = null;
  for (const line of markdown.split("\n")) {
    const [mark = ""] = line.match(/^(```+|~~~+)/) ?? [];
    if (mark && !fence) fence = mark;
    else if (mark && line.startsWith(fence)) fence = "";
    const [, title = ""] = fence ? [] : (line.match(/^## +(.+?)\s*$/) ?? []);
    if (title) {
      lines = [];
      if (!found.has(title)) found.set(title, lines);
    } else lines?.push(line);
  }
  return new Map(
    [...found]
      .map(([title, text]) => /** @type {[string, string]} */ ([title, text.join("\n").trim()]))
      .filter(([title, text]) => text && !LISTED.test(title)),
  );
}

/**
 * @param {any} rfc
 * @param {HTMLElement} text the document as it is shown
 * @param {HTMLElement} place where the question about the whole goes
 * @param {AbortSignal} signal
 */
export async function askForFeedback(rfc, text, place, signal) {
  const path = `api/v1/rfc/${encodeURIComponent(rfc.id)}/feedback`;
  /** @type {any[]} */
  let said = [];
  try {
    said = listOf(await json(path, { signal }));
  } catch (error) {
    // What was said before is not shown then; saying it again replaces it.
    if (isAbort(error)) return;
  }
  if (!text.isConnected) return;
  const before = (/** @type {string | null} */ section) =>
    said.find((s) => (s.section ?? null) === section) ?? null;
  const written = sectionsOf(rfc.markdown);
  for (const heading of text.querySelectorAll("h2")) {
    const title = heading.textContent?.trim() ?? "";
    const source = written.get(title);
    if (source === undefined) continue;
    let last = /** @type {Element} */ (heading);
    while (last.nextElementSibling && last.nextElementSibling.tagName !== "H2")
      last = last.nextElementSibling;
    const part = { section: title };
    last.after(feedbackBar({ path, what: title, part, text: () => source, said: before(title) }));
  }
  replace(
    place,
    h("h2", {}, "Is this draft useful?"),
    feedbackBar({ path, what: "the whole draft", said: before(null) }),
  );
}
