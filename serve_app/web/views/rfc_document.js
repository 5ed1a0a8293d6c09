/** One RFC: written before one's eyes, then read. The address holds its id, so a reload takes it up again. */

import { ApiError, follow, isAbort, json, request } from "../api.js";
import { announce } from "../announce.js";
import { linkMarkers, sourceList } from "../citations.js";
import { copyButton, save } from "../copy.js";
import { fromServerHtml, h, replace } from "../dom.js";
import { count, date, duration, plural, words } from "../format.js";
import { icon } from "../icons.js";
import { problemPanel } from "../problem.js";
import { statusLabel } from "./rfc.js";
import { askForFeedback } from "./rfc_feedback.js";

const STAGES = ["brief", "questions", "evidence", "outline", "sections", "checks", "render"];
const MEANING = /** @type {Record<string, string>} */ ({
  brief: "Read the brief",
  questions: "Find open questions",
  evidence: "Gather evidence",
  outline: "Outline",
  sections: "Write the sections",
  checks: "Check every claim",
  render: "Put it together",
});
const LIVE = new Set(["queued", "running"]);
const STATES = /** @type {Record<string, string>} */ ({ started: "running", pending: "waiting" });

/** @typedef {{status: string, duration_ms?: number | null, note?: string, since?: number}} Stage */

/** @returns {import("../app.js").View} */
export function rfcDocumentView() {
  let control = new AbortController();
  let shownId = "";
  /** @type {Map<string, Stage>} */
  let stages = new Map();
  /** @type {Map<number, HTMLElement>} */
  let sections = new Map();
  /** @type {any} */
  let rfc = null;

  const head = h("header", { class: "view-head" });
  const notice = h("div", {});
  const rail = h("ol", { class: "stages", "aria-label": "Stages" });
  const progressTitle = h("summary", {});
  const progress = h("details", { class: "progress", open: true }, progressTitle, rail);
  const contents = h("nav", { class: "contents", "aria-label": "Contents", hidden: true });
  const paper = h("article", { class: "paper", "aria-label": "Document" });
  const sources = h("div", {});
  const opinion = h("div", { class: "opinion" });
  const element = h(
    "section",
    { class: "view view-document" },
    head,
    notice,
    h(
      "div",
      { class: "document-columns" },
      h("div", { class: "document-main" }, paper, opinion, sources),
      h("aside", { class: "rail" }, progress, contents),
    ),
  );

  /** @param {string} id */
  async function load(id) {
    control.abort();
    control = new AbortController();
    const { signal } = control;
    stages = new Map(STAGES.map((stage) => [stage, { status: "waiting" }]));
    sections = new Map();
    rfc = null;
    for (const part of [head, notice, paper, opinion, sources, rail, progressTitle]) part.replaceChildren();
    progress.open = true;
    contents.hidden = true;
    paper.append(h("div", { class: "skeleton", "aria-hidden": "true" }, h("i"), h("i"), h("i")));
    try {
      rfc = await json(`api/v1/rfc/${encodeURIComponent(id)}`, { signal });
      takeStages(rfc.stages ?? []);
      drawHead();
      if (LIVE.has(rfc.status)) await watch(id, signal);
      else drawFinished();
    } catch (error) {
      if (isAbort(error) || signal.aborted) return;
      if (!rfc) paper.replaceChildren();
      replace(
        notice,
        problemPanel(error, () => load(id)),
      );
    }
  }

  /**
   * @param {string} id
   * @param {AbortSignal} signal
   */
  async function watch(id, signal) {
    replace(
      paper,
      h("p", { class: "paper-wait" }, "The first sections appear here as soon as they are written."),
    );
    drawRail();
    const clock = setInterval(drawRail, 500);
    /** @type {any} */
    let failure = null;
    try {
      await follow(
        `api/v1/rfc/${encodeURIComponent(id)}/events`,
        ({ event, id: seq, data }) => {
          notice.replaceChildren();
          const body = JSON.parse(data);
          if (event === "stage") takeStage(body);
          else if (event === "section") drawSection(body);
          else if (event === "retry") drawRetry(body);
          else if (event === "error") failure = body.problem;
          // Without a number the error is the stream's own; the draft may well go on.
          if (event === "error" && !seq) throw new ApiError({ ...failure, retryable: true });
          drawRail();
          return event === "done" || event === "error";
        },
        signal,
        async () => {
          try {
            rfc = await json(`api/v1/rfc/${encodeURIComponent(id)}`, { signal });
            return !LIVE.has(rfc.status);
          } catch (error) {
            if (signal.aborted) throw error;
            tell("Connection lost. Trying again; the draft goes on meanwhile.");
            return false;
          }
        },
      );
    } finally {
      clearInterval(clock);
    }
    rfc = await json(`api/v1/rfc/${encodeURIComponent(id)}`, { signal });
    takeStages(rfc.stages ?? []);
    drawHead();
    drawFinished(failure);
    announce(rfc.status === "done" ? "The RFC is ready" : `The RFC is ${words(rfc.status)}`);
  }

  /** @param {string} text */
  const tell = (text) => replace(notice, h("p", { class: "banner", role: "status" }, text));

  /** @param {{in_s: number, problem: {detail: string}}} event */
  const drawRetry = ({ in_s, problem }) =>
    tell(`${problem.detail} The draft goes on by itself in about ${duration(in_s * 1000)}.`);

  /** @param {any[]} known */
  function takeStages(known) {
    for (const { stage, status, duration_ms } of known)
      stages.set(stage, { ...stages.get(stage), status: STATES[status] ?? status, duration_ms });
  }

  /** @param {any} event */
  function takeStage(event) {
    const status = STATES[event.status] ?? event.status;
    stages.set(event.stage, {
      status,
      duration_ms: event.duration_ms,
      note: stageNote(event),
      since: status === "running" ? performance.now() : undefined,
    });
    announce(`${MEANING[event.stage] ?? words(event.stage)}: ${status}`);
  }

  function drawRail() {
    const over = rfc && !LIVE.has(rfc.status);
    const done = [...stages.values()].filter((stage) => stage.status === "done").length;
    progressTitle.textContent = `${done} of ${stages.size} steps`;
    replace(
      rail,
      [...stages].map(([name, stage]) => {
        const status = over && stage.status === "running" ? "stopped" : stage.status;
        const time =
          stage.duration_ms ?? (status === "running" && stage.since ? performance.now() - stage.since : null);
        return h(
          "li",
          { class: `stage ${status}`, "data-stage": name, "data-status": status },
          h(
            "span",
            { class: "stage-mark" },
            status === "done" ? icon("check") : status === "failed" ? icon("alert") : null,
          ),
          h(
            "span",
            { class: "stage-name" },
            MEANING[name] ?? words(name),
            stage.note && h("span", { class: "stage-note" }, stage.note),
          ),
          h("span", { class: "unseen" }, status),
          h("span", { class: "stage-time number" }, duration(time)),
        );
      }),
    );
  }

  /** @param {{index: number, title: string, markdown: string, html?: string}} section */
  function drawSection({ index, title, markdown, html }) {
    if (!sections.size) paper.replaceChildren();
    const text = html
      ? h("div", {}, fromServerHtml(html))
      : h("div", { class: "plain" }, withoutTitle(markdown, title));
    const drawn = h("section", { class: "prose arriving" }, h("h2", {}, title), text);
    sections.get(index)?.remove();
    sections.set(index, drawn);
    const after = [...sections.keys()].filter((i) => i > index).sort((a, b) => a - b)[0];
    paper.insertBefore(drawn, after === undefined ? null : /** @type {HTMLElement} */ (sections.get(after)));
  }

  function drawHead() {
    const live = LIVE.has(rfc.status);
    replace(
      head,
      h("a", { class: "back", href: "#/rfc" }, icon("left"), "All drafts"),
      h("h1", { tabindex: -1 }, rfc.title),
      h(
        "p",
        { class: "meta" },
        statusLabel(rfc.status),
        h("span", {}, words(rfc.template ?? "")),
        h("span", {}, date(rfc.created_at)),
        rfc.model && h("span", {}, rfc.model),
        rfc.tokens_used > 0 && h("span", {}, `${count(rfc.tokens_used)} tokens`),
        rfc.generation_time_ms > 0 && h("span", {}, duration(rfc.generation_time_ms)),
      ),
      h(
        "div",
        { class: "document-actions" },
        live &&
          h(
            "button",
            { class: "button small danger", type: "button", onclick: cancel },
            icon("stop"),
            "Cancel",
          ),
        !live &&
          rfc.markdown &&
          h(
            "button",
            { class: "button small", type: "button", onclick: download },
            icon("download"),
            "Download .md",
          ),
        !live && rfc.markdown && copyButton(() => rfc.markdown, "Copy Markdown", { visible: true }),
      ),
      rfc.brief &&
        h(
          "details",
          { class: "brief" },
          h("summary", {}, "The brief"),
          h("p", { class: "plain" }, rfc.brief),
        ),
    );
  }

  /** @param {any} [failure] */
  function drawFinished(failure) {
    drawRail();
    // Beside the document the steps are no trouble; above it they would push it off a small screen.
    progress.open = matchMedia("(min-width: 961px)").matches;
    const again = h("a", { class: "button small", href: "#/rfc" }, "Draft another");
    if (rfc.status === "failed") {
      const error = failure ?? rfc.problem ?? { detail: rfc.error || "The draft failed." };
      replace(
        notice,
        h(
          "div",
          { class: "problem", role: "alert" },
          icon("alert"),
          h(
            "div",
            { class: "problem-body" },
            h("p", { class: "problem-detail" }, error.detail ?? "The draft failed."),
            error.hint && h("p", { class: "problem-hint" }, error.hint),
            h(
              "div",
              { class: "problem-foot" },
              again,
              error.instance && h("span", { class: "request-id" }, "Request ", h("code", {}, error.instance)),
            ),
          ),
        ),
      );
    } else if (rfc.status === "cancelled") {
      replace(notice, h("p", { class: "banner" }, "Cancelled. What was written until then is kept. ", again));
    } else notice.replaceChildren();
    if (!rfc.html) {
      if (!sections.size)
        replace(paper, rfc.status === "done" && h("p", { class: "muted" }, "This document is empty."));
      return;
    }
    const text = h("div", { class: "prose" }, fromServerHtml(rfc.html));
    const first = text.querySelector("h1");
    if (first?.textContent?.trim() === rfc.title.trim()) first.remove();
    replace(paper, text);
    linkMarkers(text, rfc.citations ?? []);
    replace(sources, sourceList(rfc.citations ?? []));
    drawContents(text);
    if (rfc.status === "done") askForFeedback(rfc, text, opinion, control.signal);
  }

  /** @param {HTMLElement} text */
  function drawContents(text) {
    const headings = /** @type {HTMLElement[]} */ ([...text.querySelectorAll("h2")]);
    const open = text.querySelectorAll("mark.clarify").length;
    contents.hidden = headings.length < 2;
    replace(
      contents,
      h("h2", {}, "Contents"),
      h(
        "ul",
        {},
        headings.map((heading) =>
          h(
            "li",
            {},
            h(
              "button",
              { type: "button", onclick: () => heading.scrollIntoView({ block: "start" }) },
              heading.textContent,
            ),
          ),
        ),
      ),
      open > 0 &&
        h(
          "p",
          { class: "open-points" },
          h(
            "button",
            {
              type: "button",
              onclick: () => text.querySelector("mark.clarify")?.scrollIntoView({ block: "center" }),
            },
            `${count(open)} to clarify`,
          ),
        ),
    );
  }

  async function cancel() {
    try {
      await request(`api/v1/rfc/${encodeURIComponent(shownId)}/cancel`, { method: "POST" });
      load(shownId);
    } catch (error) {
      replace(notice, problemPanel(error, cancel));
    }
  }

  async function download() {
    try {
      const response = await request(`api/v1/rfc/${encodeURIComponent(shownId)}/export?format=md`);
      const name = rfc.title
        .toLowerCase()
        .replace(/[^a-z0-9]+/g, "-")
        .replace(/^-|-$/g, "")
        .slice(0, 60);
      save(await response.blob(), `${name || "rfc"}.md`);
    } catch (error) {
      replace(notice, problemPanel(error, download));
    }
  }

  return {
    element,
    title: "RFC",
    show({ id }) {
      if (!id || (id === shownId && rfc && !control.signal.aborted)) return;
      shownId = id;
      load(id);
    },
    hide() {
      // The draft goes on without a reader; coming back replays its events.
      if (!rfc || LIVE.has(rfc.status)) control.abort();
    },
    focus: () => /** @type {HTMLElement | null} */ (head.querySelector("h1"))?.focus({ preventScroll: true }),
    renew() {
      location.hash = "#/rfc";
    },
  };
}

/**
 * @param {string} markdown
 * @param {string} title shown as a heading already
 */
function withoutTitle(markdown, title) {
  const [first, ...rest] = markdown.trimStart().split("\n");
  return (first.replace(/^#+\s*/, "").trim() === title.trim() ? rest.join("\n") : markdown).trim();
}

/**
 * The figures of a finished stage in words.
 *
 * @param {any} event
 */
function stageNote(event) {
  if (event.status !== "done") return undefined;
  const many = (/** @type {unknown} */ value) => (Array.isArray(value) ? value.length : Number(value));
  const parts = [
    event.sentences !== undefined && plural(many(event.sentences), "sentence"),
    event.open !== undefined && plural(many(event.open), "open question"),
    event.passages !== undefined && plural(many(event.passages), "passage"),
    event.sections !== undefined && plural(many(event.sections), "section"),
    event.dropped > 0 && `${count(event.dropped)} dropped`,
    event.open_points > 0 && plural(event.open_points, "open point"),
    event.citations !== undefined && plural(many(event.citations), "citation"),
  ];
  return parts.filter(Boolean).join(" · ") || undefined;
}
