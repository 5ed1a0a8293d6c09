/** A question before something that others notice. */

import { h, replace } from "./dom.js";

/**
 * @param {HTMLDialogElement} dialog labelled by `id`
 * @param {{id: string, title: string, text: string, verb: string}} question
 * @returns {Promise<boolean>}
 */
export function confirmed(dialog, { id, title, text, verb }) {
  replace(
    dialog,
    h(
      "form",
      { class: "confirm", method: "dialog" },
      h("h2", { id }, title),
      h("p", {}, text),
      h(
        "div",
        { class: "confirm-foot" },
        h("button", { class: "button", value: "no", autofocus: true }, "Cancel"),
        h("button", { class: "button primary", value: "yes" }, verb),
      ),
    ),
  );
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
