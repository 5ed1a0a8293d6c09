/** The frame around the views: addresses, navigation, theme and keyboard. */

import { h, replace } from "./dom.js";
import { icon } from "./icons.js";
import { refresh, subscribe } from "./monitor.js";
import { openPassage } from "./passage.js";
import { theme } from "./store.js";
import { askView } from "./views/ask.js";
import { healthView, tone } from "./views/health.js";
import { modelsView } from "./views/models.js";
import { rfcView } from "./views/rfc.js";
import { rfcDocumentView } from "./views/rfc_document.js";
import { searchView } from "./views/search.js";

/**
 * @typedef {{view: string, id: string | null, parameters: URLSearchParams}} Route
 *
 * @typedef {object} View a view lives as long as the page, so that a stream goes on while another is looked at
 * @property {HTMLElement} element
 * @property {string} title
 * @property {(route: Route) => void} show
 * @property {() => void} hide
 * @property {() => void} focus put the cursor where one wants to type
 * @property {() => void} [renew] start afresh
 */

/** @type {Record<string, () => View>} */
const MAKERS = {
  ask: askView,
  search: searchView,
  rfc: rfcView,
  "rfc/": rfcDocumentView,
  models: modelsView,
  health: healthView,
};
/** @type {Map<string, View>} */
const views = new Map();
const main = byId("main");
/** @type {View | null} */
let current = null;

/** @param {string} id @returns {any} */
function byId(id) {
  return document.getElementById(id);
}

/** @returns {Route} */
function route() {
  const [, address = ""] = location.hash.match(/^#\/(.*)$/) ?? [];
  const [path, query = ""] = address.split("?", 2);
  const [view, id = null] = path.split("/");
  return { view: view in MAKERS ? view : "ask", id: id || null, parameters: new URLSearchParams(query) };
}

function follow() {
  const passage = location.hash.match(/^#passage-([0-9a-f-]{36})$/i);
  if (passage) {
    if (!current) display({ view: "search", id: null, parameters: new URLSearchParams() });
    openPassage(passage[1]);
    return;
  }
  if (location.hash === "#main") return;
  display(route());
}

/** @param {Route} to */
function display(to) {
  const name = to.id && `${to.view}/` in MAKERS ? `${to.view}/` : to.view;
  let view = views.get(name);
  if (!view) {
    view = MAKERS[name]();
    views.set(name, view);
    main.append(view.element);
  }
  const changed = view !== current;
  if (changed) current?.hide();
  for (const [other, { element }] of views) element.hidden = other !== name;
  for (const link of document.querySelectorAll(".nav a")) {
    if (link.getAttribute("data-view") === to.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  current = view;
  document.title = `${view.title} · AI Assistant`;
  view.show(to);
  if (!changed) return;
  window.scrollTo(0, 0);
  // On a phone a focused field would open the keyboard over the page.
  if (matchMedia("(pointer: fine)").matches) view.focus();
}

const isDark = () =>
  (document.documentElement.dataset.theme ??
    (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

function drawTheme() {
  const dark = isDark();
  const label = dark ? "Use the light theme" : "Use the dark theme";
  const button = byId("theme");
  replace(button, icon(dark ? "sun" : "moon"));
  button.setAttribute("aria-label", label);
  button.title = `${label} (t)`;
}

function toggleTheme() {
  const next = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  theme.set(next);
  drawTheme();
}

const SHORTCUTS = [
  ["/", "Search"],
  ["g a", "Go to Ask"],
  ["g s", "Go to Search"],
  ["g r", "Go to Draft RFC"],
  ["g m", "Go to Models"],
  ["g h", "Go to Health"],
  ["n", "New conversation or RFC"],
  ["↓ ↑", "Walk through search results"],
  ["← →", "Walk through citations in the passage"],
  ["Enter", "Send a question"],
  ["Shift Enter", "New line in a question"],
  ["Ctrl Enter", "Draft the RFC"],
  ["t", "Switch the theme"],
  ["Esc", "Close, or stop an answer"],
  ["?", "This list"],
];

function showShortcuts() {
  const dialog = byId("shortcuts");
  replace(
    dialog,
    h(
      "div",
      { class: "modal-head" },
      h("h2", { id: "shortcuts-title" }, "Keyboard shortcuts"),
      h(
        "button",
        { class: "ghost square", type: "button", "aria-label": "Close", onclick: () => dialog.close() },
        icon("close"),
      ),
    ),
    h(
      "dl",
      { class: "keys" },
      SHORTCUTS.map(([keys, what]) =>
        h(
          "div",
          {},
          h("dt", {}, what),
          h(
            "dd",
            {},
            keys.split(" ").map((key) => h("kbd", {}, key)),
          ),
        ),
      ),
    ),
  );
  dialog.showModal();
}

const PLACES = /** @type {Record<string, string>} */ ({
  a: "#/ask",
  s: "#/search",
  r: "#/rfc",
  m: "#/models",
  h: "#/health",
});
let afterG = false;

/** @param {KeyboardEvent} event */
function onKey(event) {
  if (event.metaKey || event.ctrlKey || event.altKey || document.querySelector("dialog[open]")) return;
  const target = /** @type {HTMLElement} */ (event.target);
  if (target.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(target.tagName)) return;
  const waiting = afterG;
  afterG = false;
  if (waiting && event.key in PLACES) location.hash = PLACES[event.key];
  else if (event.key === "g") afterG = true;
  else if (event.key === "/") goSearch();
  else if (event.key === "?") showShortcuts();
  else if (event.key === "t") toggleTheme();
  else if (event.key === "n" && current?.renew) current.renew();
  else return;
  event.preventDefault();
}

function goSearch() {
  if (route().view === "search" && current === views.get("search")) current?.focus();
  else location.hash = "#/search";
}

subscribe(({ report, error }) => {
  const state = error ? "bad" : tone(report.status);
  byId("pill").dataset.state = state;
  byId("pill-text").textContent = error
    ? "Not reachable"
    : { good: "All systems work", middle: "Limited", bad: "Trouble" }[state];
});

for (const element of document.querySelectorAll("[data-icon]"))
  element.prepend(icon(element.getAttribute("data-icon") ?? ""));
for (const dialog of document.querySelectorAll("dialog.modal")) {
  dialog.addEventListener(
    "click",
    (event) => event.target === dialog && /** @type {HTMLDialogElement} */ (dialog).close(),
  );
}
byId("theme").addEventListener("click", toggleTheme);
byId("help").addEventListener("click", showShortcuts);
document.addEventListener("keydown", onKey);
window.addEventListener("hashchange", follow);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawTheme);
drawTheme();
follow();
refresh();
