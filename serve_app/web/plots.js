/** Small plots as inline SVG. What they show stands beside them as text, for those who cannot see them. */

import { h } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 240;
const ROW = 18;
const PAD = 8;

/**
 * @typedef {{name: string, mean: number, low: number | null, high: number | null, n?: number | null}} Interval
 */

/**
 * @param {string} tag
 * @param {Record<string, string | number>} properties
 * @param {...Element} children
 */
function draw(tag, properties, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(properties)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/**
 * What may be a measurement: a number, or an object with a mean (or a difference) and the ends of its interval.
 *
 * @param {string} name
 * @param {any} value
 * @returns {Interval | null}
 */
export function interval(name, value) {
  const mean = typeof value === "number" ? value : (value?.mean ?? value?.difference ?? value?.value);
  if (typeof mean !== "number" || !Number.isFinite(mean)) return null;
  const end = (/** @type {unknown} */ v) => (typeof v === "number" && Number.isFinite(v) ? v : null);
  return { name, mean, low: end(value?.low), high: end(value?.high), n: end(value?.n) };
}

/** @param {number} value */
export function figure(value) {
  const size = Math.abs(value);
  if (size === 0 || (size >= 1000 && Number.isInteger(value))) return String(value);
  return value.toFixed(size < 10 ? 3 : size < 1000 ? 1 : 0);
}

/** @param {Interval} at */
export const inWords = (at) =>
  figure(at.mean) +
  (at.low !== null && at.high !== null ? ` (${figure(at.low)} to ${figure(at.high)})` : "") +
  (at.n ? `, n = ${at.n}` : "");

/**
 * Dots with their intervals on one scale, one row each.
 *
 * @param {Interval[]} rows
 * @param {{zero?: boolean}} [options] `zero` keeps the zero line in sight
 */
export function intervalPlot(rows, { zero = false } = {}) {
  const ends = rows.flatMap((row) => [row.mean, row.low ?? row.mean, row.high ?? row.mean]);
  if (zero) ends.push(0);
  const least = Math.min(...ends);
  const most = Math.max(...ends);
  const spread = most - least || Math.abs(most) || 1;
  const x = (/** @type {number} */ value) => PAD + ((value - least) / spread) * (WIDTH - 2 * PAD);
  const height = rows.length * ROW;
  const parts = [];
  if (zero) parts.push(draw("line", { class: "plot-zero", x1: x(0), x2: x(0), y1: 0, y2: height }));
  rows.forEach((row, n) => {
    const y = n * ROW + ROW / 2;
    parts.push(draw("line", { class: "plot-grid", x1: PAD, x2: WIDTH - PAD, y1: y, y2: y }));
    if (row.low !== null && row.high !== null)
      parts.push(
        draw("line", { class: `plot-interval ${row.name}`, x1: x(row.low), x2: x(row.high), y1: y, y2: y }),
      );
    parts.push(draw("circle", { class: `plot-mean ${row.name}`, cx: x(row.mean), cy: y, r: 4 }));
  });
  return draw(
    "svg",
    {
      class: "plot",
      viewBox: `0 0 ${WIDTH} ${height}`,
      role: "img",
      "aria-label": rows.map((row) => `${row.name}: ${inWords(row)}`).join("; "),
    },
    ...parts,
  );
}

/**
 * Ten bars from 0 to 1.
 *
 * @param {number[]} bins
 * @param {string} label
 */
export function histogram(bins, label) {
  const most = Math.max(...bins, 1);
  const width = WIDTH / bins.length;
  const height = 48;
  const bars = bins.map((count, n) => {
    const tall = (count / most) * (height - 2);
    return draw("rect", {
      class: "plot-bar",
      x: n * width + 1,
      y: height - Math.max(tall, 1),
      width: width - 2,
      height: Math.max(tall, 1),
    });
  });
  const spans = bins.map((count, n) => `${count} from ${n / 10} to ${(n + 1) / 10}`);
  return h(
    "figure",
    { class: "histogram" },
    draw(
      "svg",
      {
        class: "plot",
        viewBox: `0 0 ${WIDTH} ${height}`,
        role: "img",
        "aria-label": `${label}: ${spans.join(", ")}`,
      },
      ...bars,
    ),
    h("figcaption", {}, h("span", {}, "0"), label, h("span", {}, "1")),
  );
}
