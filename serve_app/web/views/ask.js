/** Ask: a conversation with the assistant, streamed, with sources one can open. */

import { health, isAbort, json, listOf, streamChat } from "../api.js";
import { announce } from "../announce.js";
import { linkMarkers, sourceList } from "../citations.js";
import { copyButton } from "../copy.js";
import { fromServerHtml, h, replace } from "../dom.js";
import { feedbackBar } from "../feedback.js";
import { count, duration } from "../format.js";
import { icon } from "../icons.js";
import { problemPanel } from "../problem.js";
import { model as chosenModel } from "../store.js";

const ASSISTANT = "assistant";
const EXAMPLES = [
  "What should I do when KubePersistentVolumeFillingUp fires?",
  "How does Alertmanager group and silence alerts?",
  "When should we write an RFC instead of just building it?",
];

/** What the server puts below an answer to say how it was made: no part of what a correction starts from. */
const NOTICE = /\n\n\*[^*\n]+\*\s*$/;

/** @typedef {{role: string, content: string}} Turn */

/** @returns {import("../app.js").View} */
export function askView() {
  /** @type {Turn[]} */
  let turns = [];
  /** @type {AbortController | null} */
  let streaming = null;
  let modelsKnown = false;

  const log = h("div", { class: "chat", role: "log", "aria-live": "off" });
  const input = h("textarea", {
    class: "composer-input",
    rows: 1,
    "aria-label": "Question",
    placeholder: "Ask about your runbooks, docs and designs",
    enterkeyhint: "send",
    oninput: grow,
  });
  const picker = h(
    "select",
    { class: "picker", "aria-label": "Model", onchange: () => chosenModel.set(picker.value) },
    h("option", { value: ASSISTANT }, ASSISTANT),
  );
  const submit = h(
    "button",
    { class: "send", type: "submit", "aria-label": "Send", title: "Send (Enter)" },
    icon("send"),
  );
  const renewButton = h(
    "button",
    { class: "button small", type: "button", title: "New conversation (n)", onclick: renew },
    icon("plus"),
    "New",
  );
  const composer = h(
    "form",
    {
      class: "composer",
      onsubmit: (/** @type {Event} */ e) => {
        e.preventDefault();
        streaming ? stop() : ask(input.value.trim());
      },
    },
    input,
    h(
      "div",
      { class: "composer-foot" },
      picker,
      h("span", { class: "composer-hint" }, "Enter sends, Shift Enter breaks the line"),
      submit,
    ),
  );
  const element = h(
    "section",
    { class: "view view-ask" },
    h(
      "header",
      { class: "view-head with-tools" },
      h("h1", {}, "Ask"),
      h("div", { class: "tools" }, renewButton),
    ),
    log,
    h("div", { class: "composer-dock" }, composer),
  );
  element.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Escape" && streaming) stop();
    if (event.target !== input || event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!streaming) ask(input.value.trim());
  });

  function grow() {
    input.style.height = "auto";
    input.style.height = `${Math.min(input.scrollHeight, 220)}px`;
  }

  function renew() {
    stop();
    turns = [];
    drawEmpty();
    input.focus();
  }

  function drawEmpty() {
    renewButton.hidden = true;
    replace(
      log,
      h(
        "div",
        { class: "welcome" },
        icon("spark"),
        h("h2", {}, "What would you like to know?"),
        h(
          "p",
          { class: "muted" },
          "Answers come from the documents that you may read. Every claim carries a number that opens the exact passage.",
        ),
        h(
          "div",
          { class: "examples" },
          EXAMPLES.map((q) =>
            h("button", { class: "example", type: "button", onclick: () => ask(q) }, icon("ask"), q),
          ),
        ),
      ),
    );
  }

  function stop() {
    streaming?.abort();
  }

  /** @param {boolean} on */
  function setBusy(on) {
    composer.classList.toggle("busy", on);
    replace(submit, icon(on ? "stop" : "send"));
    submit.setAttribute("aria-label", on ? "Stop" : "Send");
    submit.title = on ? "Stop (Esc)" : "Send (Enter)";
    renewButton.hidden = false;
  }

  /** @param {string} question */
  function ask(question) {
    if (!question || streaming) return;
    if (!turns.length) log.replaceChildren();
    input.value = "";
    grow();
    const exchange = h(
      "article",
      { class: "exchange" },
      h("div", { class: "question" }, h("span", { class: "unseen" }, "You asked: "), question),
    );
    log.append(exchange);
    answer(question, exchange);
  }

  /**
   * @param {string} question
   * @param {HTMLElement} exchange
   */
  async function answer(question, exchange) {
    const asked = /** @type {Turn} */ ({ role: "user", content: question });
    const text = h(
      "div",
      { class: "answer-text streaming" },
      h("span", { class: "thinking" }, "Reading the sources…"),
    );
    const body = h("div", { class: "answer", "aria-busy": "true" }, text);
    exchange.querySelector(".answer")?.remove();
    exchange.append(body);
    exchange.scrollIntoView({ block: "start" });
    announce("Answering");

    const control = new AbortController();
    streaming = control;
    setBusy(true);
    const started = performance.now();
    const seen = {
      text: "",
      model: picker.value,
      first: 0,
      usage: /** @type {any} */ (null),
      assistant: /** @type {any} */ (null),
    };
    /** @type {unknown} */
    let failure = null;
    try {
      for await (const chunk of streamChat(
        { model: picker.value, messages: [...turns, asked] },
        control.signal,
      )) {
        seen.model = chunk.model ?? seen.model;
        seen.usage = chunk.usage ?? seen.usage;
        seen.assistant = chunk.assistant ?? seen.assistant;
        const piece = chunk.choices?.[0]?.delta?.content;
        if (!piece) continue;
        if (!seen.text) {
          seen.first = performance.now() - started;
          text.replaceChildren();
        }
        seen.text += piece;
        const follow = atEnd();
        text.append(piece);
        if (follow) toEnd();
      }
    } catch (error) {
      failure = error;
    }
    const stopped = isAbort(failure);
    streaming = null;
    setBusy(false);
    body.removeAttribute("aria-busy");
    text.classList.remove("streaming");
    // The conversation may have been started afresh in the meantime.
    if (!exchange.isConnected) return;
    if (seen.text && (!failure || stopped)) turns.push(asked, { role: "assistant", content: seen.text });
    const follow = atEnd();
    if (!seen.text) text.replaceChildren();
    if (seen.assistant?.html && !failure) settle(text, seen.assistant);
    if (stopped)
      body.append(h("p", { class: "muted" }, seen.text ? "Stopped." : "Stopped before the first word."));
    else if (failure) body.append(problemPanel(failure, () => answer(question, exchange)));
    if (!failure)
      body.append(
        h(
          "div",
          { class: "answer-foot" },
          labels(seen.assistant),
          figures(seen, performance.now() - started),
          copyButton(() => seen.text, "Copy the answer"),
        ),
      );
    const answerId = seen.assistant?.id;
    if (!failure && answerId)
      body.append(
        feedbackBar({
          path: `api/v1/answers/${encodeURIComponent(answerId)}/feedback`,
          what: "this answer",
          text: () => seen.text.replace(NOTICE, "").trim(),
        }),
      );
    const citations = seen.assistant?.citations ?? [];
    if (!failure && citations.length) body.append(/** @type {HTMLElement} */ (sourceList(citations)));
    if (follow && !citations.length) toEnd();
    announce(failure ? "No complete answer" : `Answer complete, ${citations.length} sources`);
    if (matchMedia("(pointer: fine)").matches && document.activeElement === document.body) input.focus();
  }

  const page = () => /** @type {HTMLElement} */ (document.scrollingElement);
  const atEnd = () => page().scrollHeight - page().scrollTop - page().clientHeight < 80;
  const toEnd = () => page().scrollTo({ top: page().scrollHeight });

  async function loadModels() {
    if (modelsKnown) return;
    try {
      const [listed, report] = await Promise.all([json("v1/models"), health().catch(() => ({}))]);
      // The list names embedders too; only what the health report calls a model can talk.
      const talking = new Set(["auto", ...(report.models ?? []).map((/** @type {any} */ m) => m.name)]);
      const ids = /** @type {string[]} */ (listOf(listed).map((m) => m.id)).filter(
        (id) => talking.has(id) || talking.size === 1,
      );
      const wanted = chosenModel.get() ?? ASSISTANT;
      replace(
        picker,
        [...new Set([ASSISTANT, ...ids])].map((id) =>
          h("option", { value: id, selected: id === wanted }, id),
        ),
      );
      modelsKnown = true;
    } catch {
      // The assistant itself can be asked; what is wrong shows with the answer.
    }
  }

  drawEmpty();
  return {
    element,
    title: "Ask",
    show({ parameters }) {
      loadModels();
      const question = parameters.get("q");
      if (question && !turns.length && !input.value) {
        input.value = question;
        grow();
      }
    },
    hide() {},
    focus: () => input.focus(),
    renew,
  };
}

/**
 * @param {HTMLElement} text
 * @param {any} assistant
 */
function settle(text, assistant) {
  text.classList.add("prose");
  replace(text, fromServerHtml(assistant.html));
  linkMarkers(text, assistant.citations ?? []);
}

/** @param {any} assistant */
function labels(assistant) {
  if (!assistant) return null;
  return [
    assistant.grounded === false && h("span", { class: "label warn" }, "Not grounded in your sources"),
    assistant.extractive &&
      h(
        "span",
        {
          class: "label",
          title:
            "The model is small, so the answer is put together from sentences of the sources, word for word.",
        },
        "Extractive: quoted from the sources",
      ),
  ];
}

/**
 * @param {{model: string, first: number, usage: any, assistant: any}} seen
 * @param {number} took
 */
function figures(seen, took) {
  const parts = [
    seen.assistant?.model ?? seen.model,
    duration(took),
    seen.first && `first word ${duration(seen.first)}`,
    seen.usage?.completion_tokens && `${count(seen.usage.completion_tokens)} tokens`,
  ];
  return h("span", { class: "figures-line" }, parts.filter(Boolean).join(" · "));
}
