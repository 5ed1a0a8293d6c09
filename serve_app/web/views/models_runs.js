/** The learning runs: the one in work step by step, the others in a line each. */

import { follow, isAbort, json } from "../api.js";
import { announce } from "../announce.js";
import { h, replace } from "../dom.js";
import { ago, date, duration, words } from "../format.js";
import { icon } from "../icons.js";

const LIVE = new Set(["queued", "running"]);
const TONES = /** @type {Record<string, string>} */ ({
  done: "good",
  failed: "bad",
  queued: "info",
  running: "info",
});
const MARKS = /** @type {Record<string, string>} */ ({ done: "check", failed: "alert", skipped: "right" });
/** What a step may call itself, in the words that the stages of a draft use. */
const STATES = /** @type {Record<string, string>} */ ({ started: "running", ok: "done", error: "failed" });

/** @param {() => void} onEnd called when a run that was followed has ended */
export function runList(onEnd) {
  const list = h("ul", { class: "runs" });
  const element = h(
    "section",
    { class: "runs-part", hidden: true, "aria-label": "Runs" },
    h("h2", {}, "Runs"),
    list,
  );
  let control = new AbortController();
  let followed = "";
  /** @type {Map<string, HTMLElement>} */
  const steps = new Map();

  /** @param {any[]} runs newest first */
  function show(runs) {
    element.hidden = !runs.length;
    const open = new Set([...list.querySelectorAll("details[open]")].map((d) => d.getAttribute("data-run")));
    const known = new Set(steps.keys());
    steps.clear();
    replace(
      list,
      runs.map((run, n) => {
        const fresh = LIVE.has(run.status) || (!known.size && n === 0);
        return line(run, known.has(run.id) ? open.has(run.id) : fresh);
      }),
    );
    const live = runs.find((run) => LIVE.has(run.status));
    if (live && live.id !== followed) watch(live);
  }

  /** @param {any} run */
  async function watch(run) {
    control.abort();
    control = new AbortController();
    const { signal } = control;
    followed = run.id;
    const path = `api/v1/learning/runs/${encodeURIComponent(run.id)}`;
    /** @type {any[]} */
    const told = [];
    const take = (/** @type {import("../api.js").ServerEvent} */ event) => {
      if (event.event === "done" || event.event === "error") return true;
      const data = JSON.parse(event.data);
      if (event.event === "step") {
        const at = told.findIndex((step) => step.name === data.name);
        if (at < 0) told.push(data);
        else told[at] = data;
      } else if (data.detail && told.length) told[told.length - 1].detail = data.detail;
      const target = steps.get(run.id);
      if (target) drawSteps(target, told, true);
      return false;
    };
    const isOver = async () => !LIVE.has((await json(path, { signal })).status);
    try {
      await follow(`${path}/events`, take, signal, isOver);
    } catch (error) {
      // The list is refreshed anyway; only the liveliness is lost.
      if (isAbort(error) || signal.aborted) return;
    }
    followed = "";
    announce("The learning run has ended");
    onEnd();
  }

  /** @param {any} run @param {boolean} open */
  function line(run, open) {
    const began = new Date(run.created_at).getTime();
    const took = run.finished_at ? new Date(run.finished_at).getTime() - began : null;
    const target = h("ol", { class: "stages", "aria-label": "Steps" });
    steps.set(run.id, target);
    drawSteps(target, run.steps ?? [], LIVE.has(run.status));
    return h(
      "li",
      { class: "run", "data-status": run.status },
      h(
        "details",
        { "data-run": run.id, open },
        h(
          "summary",
          {},
          h("span", { class: `label ${TONES[run.status] ?? ""}` }, words(run.status)),
          h("span", { class: "run-reason" }, run.reason ?? "Learning run"),
          h("span", { class: "muted" }, [
            h("time", { datetime: run.created_at, title: date(run.created_at) }, ago(run.created_at)),
            took !== null && ` · ${duration(took)}`,
            run.attempts > 1 && ` · taken up ${run.attempts} times`,
          ]),
        ),
        run.error && h("p", { class: "run-error" }, icon("alert"), run.error),
        target,
      ),
    );
  }

  return {
    element,
    show,
    hide() {
      control.abort();
      followed = "";
    },
  };
}

/**
 * @param {HTMLElement} target
 * @param {any[]} told
 * @param {boolean} live
 */
function drawSteps(target, told, live) {
  replace(
    target,
    !told.length &&
      h("li", { class: "muted" }, live ? "Waiting for its process to start." : "It told of no steps."),
    told.map((step) => {
      const named = STATES[step.status] ?? step.status;
      const status = named === "running" && !live ? "stopped" : named;
      return h(
        "li",
        { class: `stage ${status}`, "data-step": step.name, "data-status": status },
        h("span", { class: "stage-mark" }, MARKS[status] ? icon(MARKS[status]) : null),
        h(
          "span",
          { class: "stage-name" },
          words(step.name),
          step.detail && h("span", { class: "stage-note" }, inShort(step.detail)),
        ),
        h("span", { class: "unseen" }, status),
        h("span", { class: "stage-time number" }, step.seconds ? duration(step.seconds * 1000) : ""),
      );
    }),
  );
}

/** @param {any} detail text, or figures by name */
function inShort(detail) {
  if (typeof detail !== "object") return String(detail);
  return Object.entries(detail)
    .filter(([, value]) => value !== null && typeof value !== "object")
    .map(([name, value]) => `${words(name)} ${value}`)
    .join(" · ");
}
