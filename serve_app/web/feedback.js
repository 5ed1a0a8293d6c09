/** What people think of what they got: thumbs at once; stars, a comment and a correction behind "Say more". */

import { json } from "./api.js";
import { announce } from "./announce.js";
import { h, replace } from "./dom.js";
import { icon } from "./icons.js";
import { problemPanel } from "./problem.js";

/**
 * @typedef {object} Opinion
 * @property {1 | -1 | null} [thumb]
 * @property {number | null} [stars]
 * @property {string | null} [comment]
 * @property {string | null} [edited_text]
 *
 * @typedef {object} Target
 * @property {string} path where feedback is posted to
 * @property {string} what named to people who cannot see where the buttons stand
 * @property {Record<string, string>} [part] the part of the target that is meant
 * @property {() => string} [text] what a correction starts from; without it, none is offered
 * @property {Opinion | null} [said] what this person said before
 */

const FIELDS = /** @type {const} */ (["thumb", "stars", "comment", "edited_text"]);
const MOST_COMMENT = 4000;
const MOST_TEXT = 50_000;
let made = 0;

/**
 * @param {Target} target
 * @returns {HTMLElement}
 */
export function feedbackBar({ path, what, part = {}, text, said = null }) {
  const id = `feedback-${(made += 1)}`;
  /** @type {Opinion} */
  let kept = said ?? {};
  let sending = 0;

  const up = thumb(1, "up", `Good: ${what}`);
  const down = thumb(-1, "down", `Bad: ${what}`);
  const state = h("span", { class: "feedback-state" });
  const panel = h("div", { class: "feedback-panel", id, hidden: true });
  const trouble = h("div", {});
  const more = h(
    "button",
    {
      class: "ghost feedback-more",
      type: "button",
      "aria-expanded": "false",
      "aria-controls": id,
      "aria-label": `Say more about ${what}`,
      onclick: () => (panel.hidden ? openPanel() : closePanel()),
    },
    "Say more",
  );
  const element = h(
    "div",
    { class: "feedback", role: "group", "aria-label": `Feedback on ${what}` },
    h("div", { class: "feedback-row" }, up, down, more, state),
    panel,
    trouble,
  );

  /** @param {1 | -1} value @param {string} name @param {string} label */
  function thumb(value, name, label) {
    return h(
      "button",
      {
        class: "ghost square small",
        type: "button",
        "aria-label": label,
        title: label,
        onclick: () => send({ ...kept, thumb: value }),
      },
      icon(name),
    );
  }

  function draw() {
    up.setAttribute("aria-pressed", String(kept.thumb === 1));
    down.setAttribute("aria-pressed", String(kept.thumb === -1));
    const parts = [
      kept.stars && `${kept.stars} of 5 stars`,
      kept.comment && "commented",
      kept.edited_text && "corrected",
    ].filter(Boolean);
    const any = FIELDS.some((name) => kept[name]);
    replace(state, any && icon("check"), any && ["Saved", ...parts].join(" · "));
  }

  function openPanel() {
    replace(panel, form());
    panel.hidden = false;
    more.setAttribute("aria-expanded", "true");
    (panel.querySelector("input:checked") ?? panel.querySelector("input")).focus();
  }

  function closePanel() {
    // Asked before: what is hidden has no focus any more.
    const inside = panel.contains(document.activeElement);
    panel.hidden = true;
    panel.replaceChildren();
    more.setAttribute("aria-expanded", "false");
    if (inside) more.focus();
  }

  function form() {
    const stars = starField(id, kept.stars ?? 0);
    const comment = h("textarea", {
      class: "input",
      id: `${id}-comment`,
      rows: 2,
      maxlength: MOST_COMMENT,
      placeholder: "What was right, wrong, missing or outdated?",
    });
    comment.value = kept.comment ?? "";
    const original = text?.() ?? "";
    const edit = h("textarea", { class: "input", id: `${id}-edit`, rows: 8, maxlength: MOST_TEXT });
    edit.value = kept.edited_text ?? original;
    return h(
      "form",
      {
        class: "feedback-form",
        onsubmit: (/** @type {Event} */ event) => {
          event.preventDefault();
          const edited = edit.value.trim();
          send({
            ...kept,
            stars: stars.value() || kept.stars || null,
            comment: comment.value.trim() || null,
            edited_text: text && edited && edited !== original.trim() ? edited : null,
          }).then((ok) => ok && closePanel());
        },
        onkeydown: (/** @type {KeyboardEvent} */ event) => {
          if (event.key !== "Escape") return;
          event.stopPropagation();
          closePanel();
        },
      },
      stars.element,
      h("div", { class: "field" }, h("label", { for: comment.id }, "Comment"), comment),
      text && h("div", { class: "field" }, h("label", { for: edit.id }, "How it should read"), edit),
      h(
        "div",
        { class: "feedback-foot" },
        h("button", { class: "button small primary", type: "submit" }, "Save"),
        h("button", { class: "button small", type: "button", onclick: closePanel }, "Cancel"),
        text && h("span", { class: "muted" }, "The assistant learns from corrections most."),
      ),
    );
  }

  /**
   * @param {Opinion} opinion
   * @returns {Promise<boolean>} whether it is stored
   */
  async function send(opinion) {
    const body = Object.fromEntries(
      FIELDS.filter((name) => opinion[name]).map((name) => [name, opinion[name]]),
    );
    if (!Object.keys(body).length) {
      replace(
        trouble,
        h("p", { class: "feedback-hint", role: "alert" }, "Give a thumb, stars, a comment or a correction."),
      );
      return false;
    }
    const turn = (sending += 1);
    element.setAttribute("aria-busy", "true");
    try {
      const stored = await json(path, { body: { ...body, ...part } });
      // Of two quick clicks the answer to the later one counts.
      if (turn !== sending) return true;
      kept = Object.fromEntries(FIELDS.map((name) => [name, stored[name] ?? null]));
      trouble.replaceChildren();
      draw();
      announce("Feedback saved");
      return true;
    } catch (error) {
      if (turn === sending)
        replace(
          trouble,
          problemPanel(error, () => send(opinion).then((ok) => ok && closePanel())),
        );
      return false;
    } finally {
      if (turn === sending) element.removeAttribute("aria-busy");
    }
  }

  draw();
  return element;
}

/**
 * Radio buttons that look like stars, so that the arrow keys work as everywhere.
 *
 * @param {string} name
 * @param {number} chosen 0 for none
 */
function starField(name, chosen) {
  const inputs = [1, 2, 3, 4, 5].map((n) =>
    h("input", {
      class: "unseen",
      type: "radio",
      name: `${name}-stars`,
      value: n,
      checked: n === chosen,
      "aria-label": n === 1 ? "1 star" : `${n} stars`,
    }),
  );
  const value = () => Number(inputs.find((input) => input.checked)?.value ?? 0);
  const labels = inputs.map((input) => h("label", { class: "star" }, input, icon("star")));
  const draw = () => labels.forEach((label, n) => label.classList.toggle("on", n < value()));
  const element = h(
    "fieldset",
    { class: "stars", onchange: draw },
    h("legend", {}, "Stars"),
    h("div", { class: "star-row" }, labels),
  );
  draw();
  return { element, value };
}
