"""One request on its way through llama.cpp: chunks cross from the engine's thread to the event loop."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

from assistant.errors import AssistantError, InvalidInput
from assistant.llm.catalog import ModelSpec
from assistant.llm.messages import failed, too_long
from assistant.llm.providers.openai_wire import read_chunk
from assistant.llm.types import Piece
from assistant.types import Usage


class LlamaStream:
    """Made on the loop that reads it; `run` works in a thread."""

    def __init__(self, spec: ModelSpec, body: str, heard: Callable[[], None]) -> None:
        self._spec = spec
        self._heard = heard
        self._body = body
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[str | AssistantError | None] = asyncio.Queue()
        self._ended = False

    def run(self, server: Any) -> None:
        """In a worker thread, until the answer is complete, refused, or `end` was called."""
        try:
            if not self._ended:
                server.handle_chat_completions(self._body, self._on_chunk)
            self._put(None)
        except ValueError as error:
            # What the request asks for and the template or grammar cannot do.
            self._put(InvalidInput(f"The model cannot serve this request: {error}", field="messages"))
        except Exception as error:
            self._put(failed(self._spec.name, "engine", f"llama.cpp failed: {error}"))

    def end(self, error: AssistantError | None) -> None:
        """On the loop. llama.cpp lets go at its next chunk; a reader gets `error`."""
        self._ended = True
        if error is not None:
            self._queue.put_nowait(error)

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        finish, usage = None, None
        while (item := await self._queue.get()) is not None:
            if isinstance(item, AssistantError):
                raise item
            chunk = read_chunk(json.loads(item))
            if chunk.error is not None:
                raise self._refusal(chunk.error)
            usage = chunk.usage or usage
            finish = chunk.finish_reason or finish
            if chunk.text:
                yield Piece(chunk.text)
        if finish is None:
            raise failed(self._spec.name, "truncated", "llama.cpp ended the answer without a reason")
        yield Piece("", finish, usage or Usage())

    def _on_chunk(self, chunk: str) -> bool:
        """True makes llama.cpp drop the request."""
        self._heard()
        return self._ended or not self._put(chunk)

    def _put(self, item: str | AssistantError | None) -> bool:
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
        except RuntimeError:
            # The loop is closed: nobody reads any more.
            return False
        return True

    def _refusal(self, error: Any) -> AssistantError:
        message = str(error.get("message", "no message"))
        if error.get("type") == "exceed_context_size_error":
            return too_long(self._spec.name, int(error["n_prompt_tokens"]), self._spec.context_tokens)
        if error.get("code") == 400:
            return InvalidInput(f"llama.cpp refused the request: {message}", field="messages")
        return failed(self._spec.name, "engine", message)
