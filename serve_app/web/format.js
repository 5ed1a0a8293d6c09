/** Numbers, times and paths as people read them. */

/** @param {number | null | undefined} ms */
export function duration(ms) {
  if (ms === null || ms === undefined) return "";
  if (ms < 1) return "<1 ms";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  const minutes = Math.floor(ms / 60_000);
  return `${minutes} min ${Math.round((ms % 60_000) / 1000)} s`;
}

/** @param {number} seconds */
export function span(seconds) {
  const units = /** @type {[string, number][]} */ ([
    ["d", 86400],
    ["h", 3600],
    ["min", 60],
    ["s", 1],
  ]);
  const from = units.findIndex(([, size]) => seconds >= size);
  if (from < 0) return "0 s";
  const parts = [];
  let rest = Math.floor(seconds);
  for (const [unit, size] of units.slice(from, from + 2)) {
    if (rest >= size) parts.push(`${Math.floor(rest / size)} ${unit}`);
    rest %= size;
  }
  return parts.join(" ");
}

const NUMBER = new Intl.NumberFormat("en");
const DATE = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });
const AGO = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

/** @param {number | null | undefined} value */
export const count = (value) => (value === null || value === undefined ? "–" : NUMBER.format(value));

/** @param {string | null | undefined} iso */
export function date(iso) {
  const time = iso ? new Date(iso) : null;
  return time && !Number.isNaN(time.getTime()) ? DATE.format(time) : "";
}

/** @param {string | null | undefined} iso */
export function ago(iso) {
  const time = iso ? new Date(iso).getTime() : NaN;
  if (Number.isNaN(time)) return "";
  const seconds = (time - Date.now()) / 1000;
  if (seconds > -60) return "just now";
  if (seconds > -3600) return AGO.format(Math.round(seconds / 60), "minute");
  if (seconds > -86400) return AGO.format(Math.round(seconds / 3600), "hour");
  return AGO.format(Math.round(seconds / 86400), "day");
}

/**
 * @param {number} n
 * @param {string} one
 * @param {string} [many]
 */
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** @param {string} name */
export const words = (name) => name.replaceAll("_", " ").replaceAll("-", " ");

/** @param {string[]} headings */
export const path = (headings) => (headings ?? []).join(" › ");

/**
 * The address when a browser may follow it; documents can carry anything in their `url`.
 *
 * @param {string | null | undefined} url
 * @returns {string | null}
 */
export function webAddress(url) {
  try {
    const parsed = new URL(url ?? "");
    return parsed.protocol === "https:" || parsed.protocol === "http:" ? parsed.href : null;
  } catch {
    return null;
  }
}
