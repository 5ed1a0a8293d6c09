/** Watches /health: closely while the Health view is open, from time to time for the pill in the sidebar. */

import { health } from "./api.js";

const CLOSELY_MS = 5000;
const SELDOM_MS = 30_000;

/** @typedef {{report: any, error: unknown, at: Date | null}} Seen */

/** @type {Seen} */
let seen = { report: null, error: null, at: null };
/** @type {((seen: Seen) => void)[]} */
const listeners = [];
let close = false;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;
let round = 0;

/** @param {(seen: Seen) => void} listener */
export function subscribe(listener) {
  listeners.push(listener);
  if (seen.at) listener(seen);
}

/** @param {boolean} on */
export function watchClosely(on) {
  close = on;
  if (on) refresh();
}

export async function refresh() {
  clearTimeout(timer);
  const mine = ++round;
  try {
    const report = await health();
    if (mine === round) seen = { report, error: null, at: new Date() };
  } catch (error) {
    if (mine === round) seen = { ...seen, error, at: new Date() };
  }
  if (mine !== round) return;
  for (const listener of listeners) listener(seen);
  if (!document.hidden) timer = setTimeout(refresh, close ? CLOSELY_MS : SELDOM_MS);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else refresh();
});
