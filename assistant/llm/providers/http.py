"""What both HTTP providers share: one client, and how trouble on the wire becomes an error of ours."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from assistant.clock import now
from assistant.errors import AssistantError, InvalidInput
from assistant.llm.catalog import ModelSpec
from assistant.llm.messages import failed

CONNECT_TIMEOUT_S = 5.0
HEALTH_TIMEOUT_S = 2.0
MAX_LINE_BYTES = 4_000_000
MAX_ERROR_BYTES = 64_000
MAX_RETRY_AFTER_S = 600.0


class HttpServer:
    """One remote server: requests with its key and time limits, errors named after its backend."""

    def __init__(
        self,
        spec: ModelSpec,
        base_url: str,
        transport: httpx.AsyncBaseTransport | None,
        environ: Mapping[str, str] | None,
    ) -> None:
        self.name = spec.name
        self._key_env = spec.api_key_env
        self._environ = os.environ if environ is None else environ
        self._client = httpx.AsyncClient(
            base_url=base_url.rstrip("/") + "/",
            transport=transport,
            # The router watches the time between tokens; this catches a server that never speaks at all.
            timeout=httpx.Timeout(
                max(spec.first_token_timeout_s, spec.stall_timeout_s), connect=CONNECT_TIMEOUT_S
            ),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=spec.slots),
            follow_redirects=False,
        )
        # Not the client's own limit: a health check must not wait behind long answers.
        self._slots = asyncio.Semaphore(spec.slots)

    async def aclose(self) -> None:
        await self._client.aclose()

    def missing_key(self) -> str | None:
        """What to tell the operator when the key's variable is not set."""
        if self._key_env is None or self._environ.get(self._key_env):
            return None
        return f"the environment variable {self._key_env} is not set"

    @asynccontextmanager
    async def post(
        self, path: str, body: Mapping[str, Any], traceparent: str | None = None
    ) -> AsyncIterator[httpx.Response]:
        """A streamed response with status 200. Raises what `refusal` says for any other."""
        if missing := self.missing_key():
            raise failed(self.name, "auth", missing, retryable=False)
        async with self._slots:
            with self._named():
                headers = self._headers() | ({"traceparent": traceparent} if traceparent else {})
                async with self._client.stream("POST", path, json=body, headers=headers) as response:
                    if response.status_code != 200:
                        raise await self._refusal(response)
                    yield response

    async def get(self, path: str) -> Any:
        """The JSON of a quick GET, for health. Raises BackendFailed."""
        if missing := self.missing_key():
            raise failed(self.name, "auth", missing, retryable=False)
        with self._named():
            response = await self._client.get(path, headers=self._headers(), timeout=HEALTH_TIMEOUT_S)
            if response.status_code != 200:
                raise failed(self.name, "server_error", f"answered {response.status_code} to GET {path}")
            try:
                return response.json()
            except ValueError:
                raise self.malformed(f"GET {path} is no JSON") from None

    async def lines(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        """Lines split at b"\\n" only: httpx's own splitter also breaks at U+2028, which JSON may contain."""
        pending = bytearray()
        async for block in response.aiter_bytes():
            pending += block
            while (end := pending.find(b"\n")) >= 0:
                yield bytes(pending[:end]).rstrip(b"\r")
                del pending[: end + 1]
            if len(pending) > MAX_LINE_BYTES:
                raise self.malformed(f"a line is longer than {MAX_LINE_BYTES} bytes")
        if pending:
            yield bytes(pending)

    def malformed(self, what: str) -> AssistantError:
        return failed(self.name, "malformed", f"the answer does not follow its protocol: {what}")

    def truncated(self) -> AssistantError:
        return failed(self.name, "truncated", "the stream ended before the answer did")

    def error_from(self, status: int, message: str, retry_after_s: float | None = None) -> AssistantError:
        """The error for a refusal with this HTTP status and the server's own words."""
        said = f"answered {status}: {message[:500]}"
        if status in {400, 413, 422}:
            return InvalidInput(f"{self.name} refused the request: {message[:500]}", field="messages")
        if status in {401, 402, 403}:
            # These bodies can repeat parts of the key.
            return failed(
                self.name,
                "auth",
                f"answered {status}; the key or the account is not accepted",
                retryable=False,
                hint=f"Check {self._key_env or 'api_key_env in models.yaml'}.",
            )
        if status == 404:
            return failed(
                self.name,
                "unknown_model",
                said,
                retryable=False,
                hint="Check remote_model and base_url in models.yaml.",
            )
        if status == 429:
            return failed(self.name, "rate_limited", said, retry_after_s=retry_after_s)
        if status == 408 or status >= 500:
            return failed(self.name, "server_error", said, retry_after_s=retry_after_s)
        return failed(self.name, "rejected", said, retryable=False)

    async def _refusal(self, response: httpx.Response) -> AssistantError:
        body = bytearray()
        async for block in response.aiter_bytes():
            body += block
            if len(body) > MAX_ERROR_BYTES:
                break
        return self.refuse(
            response.status_code,
            body.decode("utf-8", "replace"),
            retry_after_s(response.headers.get("retry-after"), now()),
        )

    def refuse(self, status: int, body: str, wait_s: float | None) -> AssistantError:
        """Providers override this to read their own error bodies."""
        return self.error_from(status, body, wait_s)

    def _headers(self) -> dict[str, str]:
        key = self._environ.get(self._key_env) if self._key_env else None
        return {"authorization": f"Bearer {key}"} if key else {}

    def _named(self) -> "_Named":
        return _Named(self.name)


class _Named:
    """Turns httpx's errors into BackendFailed that names the backend."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        match error:
            case httpx.ConnectTimeout() | httpx.ConnectError():
                raise failed(self._name, "connect", f"cannot be reached ({error})") from None
            case httpx.TimeoutException():
                raise failed(self._name, "timeout", "did not answer in time") from None
            case httpx.RemoteProtocolError() | httpx.ReadError():
                raise failed(self._name, "truncated", f"the connection broke ({error})") from None
            case httpx.HTTPError() | httpx.InvalidURL() | httpx.StreamError():
                raise failed(self._name, "connect", f"{type(error).__name__}: {error}") from None


def retry_after_s(header: str | None, at: datetime) -> float | None:
    """Seconds from a Retry-After header in either form of RFC 9110, at most ten minutes; None if absent."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(header) - at).total_seconds()
        except (TypeError, ValueError):
            return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S) if seconds == seconds else None
