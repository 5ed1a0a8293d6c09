/** What is known of an adapter: how it measured, what was decided and why, and where it comes from. */

import { h } from "../dom.js";
import { date, words } from "../format.js";
import { figure, intervalPlot, interval, inWords } from "../plots.js";

/** @typedef {import("../plots.js").Interval} Interval */

const LABELS = /** @type {Record<string, string>} */ ({ frozen: "Frozen set", guard: "Guard set" });

/**
 * Every metric that any of them has, those who have it on one scale.
 *
 * @param {Record<string, any>} records by alias
 */
export function measurements(records) {
  /** @type {Map<string, Interval[]>} */
  const found = new Map();
  for (const [alias, record] of Object.entries(records)) {
    for (const [metric, value] of Object.entries(record?.metrics ?? {})) {
      const row = interval(alias, value);
      if (row) found.set(metric, [...(found.get(metric) ?? []), row]);
    }
  }
  if (!found.size) return null;
  return h(
    "div",
    { class: "metrics" },
    [...found].map(([metric, rows]) =>
      h(
        "div",
        { class: "metric", "data-metric": metric },
        h("h3", {}, words(metric)),
        intervalPlot(rows),
        h(
          "ul",
          { class: "metric-values" },
          rows.map((row) =>
            h(
              "li",
              {},
              h("span", { class: `alias-dot ${row.name}`, "aria-hidden": "true" }),
              h("span", { class: "unseen" }, `${row.name} `),
              h("span", { class: "number" }, inWords(row)),
            ),
          ),
        ),
      ),
    ),
  );
}

/** @param {any} record */
const decisionOf = (record) => record?.lineage?.decision ?? record?.lineage?.gate;

/** @param {any} record */
export const hasDecision = (record) => typeof decisionOf(record) === "object";

/**
 * The gate's decision on an adapter, with the paired differences behind it.
 *
 * @param {any} record
 */
export function verdict(record) {
  const decision = decisionOf(record);
  if (!decision) return null;
  const pairs = Object.entries(decision)
    .map(([name, value]) => ({ name, value, row: isPair(value) ? interval(name, value) : null }))
    .filter((pair) => pair.row);
  return h(
    "div",
    { class: "decision" },
    h(
      "h3",
      {},
      "Decision on ",
      record.adapter ?? "the base model",
      " ",
      h(
        "span",
        { class: `label ${decision.promote ? "good" : "warn"}` },
        decision.promote ? "promote" : "do not promote",
      ),
    ),
    Array.isArray(decision.reasons) &&
      h(
        "ul",
        { class: "reasons" },
        decision.reasons.map((/** @type {unknown} */ reason) => h("li", {}, String(reason))),
      ),
    pairs.length > 0 &&
      h(
        "div",
        { class: "metrics" },
        pairs.map(({ name, value, row }) =>
          h(
            "div",
            { class: "metric" },
            h("h3", {}, LABELS[name] ?? words(name), ": difference"),
            intervalPlot([/** @type {Interval} */ (row)], { zero: true }),
            h(
              "p",
              { class: "metric-values number" },
              inWords(/** @type {Interval} */ (row)),
              value.verdict && `: ${value.verdict}`,
              typeof value.p_value === "number" && `, ${chance(value.p_value)}`,
            ),
          ),
        ),
      ),
  );
}

/** @param {number} p */
const chance = (p) => (p < 0.001 ? "p < 0.001" : `p = ${p.toFixed(3)}`);

/** @param {any} value */
const isPair = (value) => value && typeof value === "object" && typeof value.difference === "number";

/**
 * @param {any} record
 * @param {string} key
 */
export function lineage(record, key) {
  const known = [
    ["Adapter", record.adapter],
    ["Registry version", record.registry_version],
    ["Data", record.data_hash],
    ["Code", record.code_version],
    ["Offered", date(record.created_at)],
    ["Decided by", record.decided_by],
  ];
  const others = Object.entries(record.lineage ?? {})
    .filter(([name]) => !["decision", "gate"].includes(name))
    .map(([name, value]) => [words(name), inShort(value)]);
  return h(
    "details",
    { class: "more", "data-key": `lineage ${key}` },
    h("summary", {}, `Lineage of ${record.adapter}`),
    h(
      "dl",
      { class: "lineage" },
      [...known, ...others]
        .filter(([, value]) => value)
        .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, h("code", {}, String(value))))),
    ),
  );
}

/** @param {unknown} value */
function inShort(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : figure(value);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
