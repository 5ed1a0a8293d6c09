/** Draft RFC: what is to be decided goes in; earlier drafts are below. */

import { json, listOf } from "../api.js";
import { h, replace } from "../dom.js";
import { ago, date, words } from "../format.js";
import { icon } from "../icons.js";
import { problemPanel } from "../problem.js";

const EXAMPLE = {
  title: "Automatic cleanup of idle persistent volumes",
  brief:
    "Persistent volumes of finished jobs stay around and fill the storage class; on-call gets paged for volumes nobody uses. " +
    "Goal: volumes unused for 14 days are snapshotted and deleted after the owner was asked. " +
    "Users: the 40 platform engineers and every team with a namespace. Not in scope: object storage.",
};

/** @returns {import("../app.js").View} */
export function rfcView() {
  /** @type {any[]} */
  let templates = [];
  let key = newKey();
  let sending = false;

  const title = h("input", {
    class: "input",
    id: "rfc-title",
    required: true,
    maxlength: 500,
    autocomplete: "off",
    placeholder: "What is proposed, in one line",
    oninput: edited,
  });
  const brief = h("textarea", {
    class: "input",
    id: "rfc-brief",
    required: true,
    rows: 8,
    placeholder:
      "The problem, who has it, what you want to reach and what you do not want to touch. Facts you give here are used as they are.",
    oninput: edited,
  });
  const template = h(
    "select",
    {
      class: "input",
      id: "rfc-template",
      onchange: () => {
        edited();
        drawTemplate();
      },
    },
    h("option", { value: "new_feature" }, "New feature"),
  );
  const about = h("p", { class: "field-hint", id: "rfc-template-about" });
  template.setAttribute("aria-describedby", about.id);
  const send = h("button", { class: "button primary", type: "submit" }, "Draft the RFC");
  const trouble = h("div", {});
  const example = h("button", { class: "button", type: "button", onclick: useExample }, "Fill in an example");
  const form = h(
    "form",
    {
      class: "card form",
      onsubmit: (/** @type {Event} */ e) => {
        e.preventDefault();
        create();
      },
    },
    h("div", { class: "field" }, h("label", { for: title.id }, "Title"), title),
    h("div", { class: "field" }, h("label", { for: brief.id }, "Brief"), brief),
    h("div", { class: "field" }, h("label", { for: template.id }, "Template"), template, about),
    trouble,
    h(
      "div",
      { class: "form-foot" },
      send,
      example,
      h("span", { class: "composer-hint" }, "Ctrl Enter drafts"),
    ),
  );
  form.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  const earlier = h("div", { class: "earlier" });
  const element = h(
    "section",
    { class: "view view-rfc" },
    h(
      "header",
      { class: "view-head" },
      h("h1", {}, "Draft an RFC"),
      h(
        "p",
        { class: "muted" },
        "A first draft from your brief and your own documents. What nobody has written down yet is marked as an open question, never invented.",
      ),
    ),
    h(
      "div",
      { class: "rfc-columns" },
      form,
      h(
        "aside",
        { "aria-labelledby": "earlier-title" },
        h("h2", { id: "earlier-title" }, "Earlier drafts"),
        earlier,
      ),
    ),
  );

  /** The same content sent twice must not become two documents; another content must. */
  function edited() {
    key = newKey();
  }

  function useExample() {
    title.value = EXAMPLE.title;
    brief.value = EXAMPLE.brief;
    edited();
    title.focus();
  }

  function drawTemplate() {
    about.textContent = templates.find((t) => t.name === template.value)?.description ?? "";
  }

  async function create() {
    if (sending) return;
    sending = true;
    send.disabled = true;
    trouble.replaceChildren();
    try {
      const made = await json("api/v1/rfc", {
        headers: { "idempotency-key": key },
        body: { title: title.value.trim(), brief: brief.value.trim(), template: template.value },
      });
      form.reset();
      edited();
      drawTemplate();
      location.hash = `#/rfc/${made.id}`;
    } catch (error) {
      replace(trouble, problemPanel(error, create));
    } finally {
      sending = false;
      send.disabled = false;
    }
  }

  async function loadTemplates() {
    if (templates.length) return;
    try {
      templates = listOf(await json("api/v1/rfc/templates"));
      const chosen = template.value;
      replace(
        template,
        templates.map((t) =>
          h("option", { value: t.name, selected: t.name === chosen }, t.title ?? words(t.name)),
        ),
      );
      drawTemplate();
    } catch {
      // The default template is in the list already.
    }
  }

  async function loadEarlier() {
    try {
      const items = listOf(await json("api/v1/rfc?limit=20"));
      replace(
        earlier,
        items.length
          ? h("ul", { class: "drafts" }, items.map(draftLine))
          : h(
              "p",
              { class: "muted" },
              "Nothing drafted yet. A draft takes some seconds to some minutes, and goes on when you close this page.",
            ),
      );
    } catch (error) {
      replace(earlier, problemPanel(error, loadEarlier));
    }
  }

  return {
    element,
    title: "Draft RFC",
    show() {
      loadTemplates();
      loadEarlier();
    },
    hide() {},
    focus: () => title.focus(),
    renew: () => title.focus(),
  };
}

/** @param {any} rfc */
const draftLine = (rfc) =>
  h(
    "li",
    {},
    h(
      "a",
      { class: "draft", href: `#/rfc/${rfc.id}` },
      icon("rfc"),
      h("span", { class: "draft-title" }, rfc.title),
      h(
        "span",
        { class: "draft-meta" },
        statusLabel(rfc.status),
        h("time", { datetime: rfc.created_at, title: date(rfc.created_at) }, ago(rfc.created_at)),
      ),
    ),
  );

/** @param {string} status */
export function statusLabel(status) {
  const tones = /** @type {Record<string, string>} */ ({
    done: "good",
    failed: "bad",
    cancelled: "",
    queued: "info",
    running: "info",
  });
  const names = /** @type {Record<string, string>} */ ({
    done: "Ready",
    running: "Writing",
    queued: "Waiting",
  });
  return h("span", { class: `label ${tones[status] ?? ""}` }, names[status] ?? words(status));
}

/** Random, also where `crypto.randomUUID` is missing because the page came over plain http. */
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join(
    "",
  );
}
