"""The HTTP API from a terminal: problem bodies become errors, event streams become events."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from assistant.errors import AssistantError
from cluster.cli.exits import NotRunning

CONNECT_S = 5.0
ANSWER_S = 150.0


class Refused(AssistantError):
    """The API's own error; `status` and `instance` are in `extra`."""

    code = "refused"

    def problem(self) -> dict[str, Any]:
        return super().problem() | dict(self.extra)


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    data: Any
    id: str = ""


class Api:
    """One client. Every method raises NotRunning when nothing answers, else Refused with the API's words."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(
            base_url=url, headers=headers, timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S), trust_env=False
        )

    def get(self, path: str, **params: Any) -> Any:
        return self._json("GET", path, params={k: v for k, v in params.items() if v is not None})

    def text(self, path: str, **params: Any) -> str:
        with self._answers():
            return self._checked(self._client.get(path, params=params)).text

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self._json("POST", path, json=body)

    def stream(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, last_event_id: str = ""
    ) -> Iterator[Event]:
        """The events of one response, until it ends."""
        headers = {"accept": "text/event-stream"} | (
            {"last-event-id": last_event_id} if last_event_id else {}
        )
        with (
            self._answers(),
            self._client.stream(method, path, json=body, headers=headers) as response,
        ):
            if response.is_error:
                response.read()
            yield from events(self._checked(response).iter_lines())

    def _json(self, method: str, path: str, **options: Any) -> Any:
        with self._answers():
            return self._checked(self._client.request(method, path, **options)).json()

    @contextmanager
    def _answers(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise AssistantError(
                f"{self.url} took too long to answer ({type(error).__name__}).",
                hint="`ai-assistant status` shows what is slow.",
            ) from None
        except httpx.TransportError as error:
            raise NotRunning(
                f"{self.url} does not answer ({error or type(error).__name__}).",
                hint="`ai-assistant status` shows what runs; a service that died comes back by itself.",
            ) from None

    def _checked(self, response: httpx.Response) -> httpx.Response:
        if response.is_error:
            raise problem(_body(response), response.status_code, response.text)
        return response


def problem(body: Any, status: int, text: str = "") -> Refused:
    """An RFC 9457 body, or OpenAI's `{"error": …}`, as an error."""
    found: Any = body
    if isinstance(body, dict):
        found = body.get("problem") or body.get("error") or body
    if not isinstance(found, dict):
        found = {}
    detail = found.get("detail") or found.get("message") or text.strip()[:300] or "no reason given"
    known = {"detail", "message", "hint", "type", "title"}
    extra = {name: value for name, value in found.items() if name not in known}
    return Refused(str(detail), hint=found.get("hint"), **{**extra, "status": found.get("status", status)})


def events(lines: Iterator[str]) -> Iterator[Event]:
    """Server-sent events; data that is JSON is decoded, `[DONE]` ends the stream."""
    name, identifier, data = "", "", list[str]()
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            if data:
                text = "\n".join(data)
                if text == "[DONE]":
                    return
                yield Event(name or "message", _decoded(text), identifier)
            name, data = "", []
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            identifier = value


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _body(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None
