/** Copying and saving text. */

import { h, replace } from "./dom.js";
import { icon } from "./icons.js";
import { announce } from "./announce.js";

/** @param {string} text */
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Plain http on another host than this one has no clipboard API.
  const area = h("textarea", { class: "unseen", "aria-hidden": "true" });
  area.value = text;
  const top = document.querySelector("dialog[open]") ?? document.body;
  top.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("copying was refused");
}

/**
 * @param {() => string} text
 * @param {string} label
 * @param {{visible?: boolean}} [options] `visible` shows the label beside the icon
 * @returns {HTMLButtonElement}
 */
export function copyButton(text, label, { visible = false } = {}) {
  const face = () => [icon("copy"), visible && label];
  const button = h(
    "button",
    {
      class: visible ? "button small" : "ghost square small",
      type: "button",
      title: visible ? null : label,
      "aria-label": label,
      onclick: async () => {
        try {
          await copy(text());
          replace(button, icon("check"), visible && "Copied");
          announce("Copied");
        } catch {
          replace(button, icon("alert"), visible && "Not allowed");
          announce("The browser did not allow copying");
        }
        setTimeout(() => replace(button, face()), 1500);
      },
    },
    face(),
  );
  return button;
}

/**
 * @param {Blob} content
 * @param {string} name
 */
export function save(content, name) {
  const url = URL.createObjectURL(content);
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
