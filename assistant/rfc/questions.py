"""Stage 2: what the brief leaves open. The template knows what readers will ask; a model may add to it."""

import json
import re
from collections.abc import Mapping, Set

from assistant.rfc.artefacts import BriefArtefact, BriefSentence, ModelUse, Question, QuestionsArtefact
from assistant.rfc.brief import finished, kind_of
from assistant.rfc.sentences import sentences
from assistant.rfc.templates import Need, SentenceKind, Template
from assistant.rfc.words import similarity
from assistant.rfc.work import Work, log

SAME = 0.6
"""Two questions whose words overlap this much (Jaccard) ask the same."""
LONGEST = 200


class QuestionsStage:
    name = "questions"

    async def run(self, work: Work) -> QuestionsArtefact:
        brief = work.of(BriefArtefact)
        asked, answers = answered(work.answers, work.template)
        spoken = brief.text() + "\n" + "\n".join(a.text for a in answers)
        kinds = {s.kind for s in (*brief.sentences[1:], *answers)}
        done = {q.id for q in asked}
        unmet = [n for n in work.template.needs if n.id not in done and not met(n, spoken, kinds)]
        open_ = [Question(n.id, n.section, n.question) for n in unmet]
        more, use = await self._from_model(work, brief, [*asked, *open_])
        limit = work.settings.rfc.max_questions
        return QuestionsArtefact((*asked, *(open_ + more)[:limit]), answers, use)

    async def _from_model(
        self, work: Work, brief: BriefArtefact, known: list[Question]
    ) -> tuple[list[Question], ModelUse]:
        room = work.settings.rfc.max_questions - sum(q.answer is None for q in known)
        phraser = work.phraser(self.name)
        spec = phraser.spec()
        if spec is None or spec.writing != "free" or room <= 0:
            return [], phraser.used()
        keys = [s.key for s in work.template.sections if s.kind not in {"questions", "references"}]
        reply = await phraser.ask(
            "questions",
            max_tokens=60 * room + 60,
            json_schema=schema(keys, room),
            title=work.title,
            count=room,
            known="; ".join(q.text for q in known) or "none",
            sections=", ".join(keys),
            brief=brief.text(),
        )
        return parse(reply or "", keys, known)[:room], phraser.used()


def answered(
    answers: Mapping[str, str], template: Template
) -> tuple[list[Question], tuple[BriefSentence, ...]]:
    """The user's answers as questions and as sentences with refs a1, a2 …; keys are need ids or questions."""
    given = {str(k): str(v).strip() for k, v in answers.items()}
    questions: list[Question] = []
    spoken: list[BriefSentence] = []
    for asked, answer in given.items():
        if not answer:
            continue
        need = next(
            (n for n in template.needs if n.id == asked or similarity(n.question, asked) >= SAME), None
        )
        question = (
            Question(need.id, need.section, need.question, answer, "template")
            if need
            else Question(
                f"user-{sum(q.origin == 'user' for q in questions) + 1}",
                "design_details",
                asked,
                answer,
                "user",
            )
        )
        questions.append(question)
        for sentence in sentences(answer):
            text = finished(sentence.text)
            spoken.append(BriefSentence(f"a{len(spoken) + 1}", text, kind_of(text), question.section))
    return questions, tuple(spoken)


def met(need: Need, text: str, kinds: Set[SentenceKind]) -> bool:
    """Whether the brief already says what `need` asks for."""
    return bool(kinds & set(need.kinds)) or any(re.search(s, text, re.IGNORECASE) for s in need.signs)


def schema(sections: list[str], count: int) -> dict[str, object]:
    item = {
        "type": "object",
        "properties": {
            "question": {"type": "string", "maxLength": LONGEST},
            "section": {"type": "string", "enum": sections},
        },
        "required": ["question", "section"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"questions": {"type": "array", "items": item, "maxItems": count}},
        "required": ["questions"],
        "additionalProperties": False,
    }


def parse(reply: str, sections: list[str], known: list[Question]) -> list[Question]:
    """Questions in a model's reply that are questions, belong to a section, and are not asked yet."""
    match = re.search(r"\{.*\}", reply, re.DOTALL)
    try:
        items = json.loads(match[0])["questions"] if match else []
    except (ValueError, KeyError, TypeError):
        log.warning("rfc_questions_unreadable", reply=len(reply))
        return []
    found: list[Question] = []
    for item in items if isinstance(items, list) else []:
        text = " ".join(str(item.get("question", "")).split()) if isinstance(item, dict) else ""
        if not text.endswith("?") or len(text) > LONGEST or item.get("section") not in sections:
            continue
        if all(similarity(text, q.text) < SAME for q in [*known, *found]):
            found.append(Question(f"model-{len(found) + 1}", item["section"], text, None, "model"))
    return found
