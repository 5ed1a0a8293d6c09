"""Who asks: the principal of a request, from its API key or, on one person's machine, nobody in particular."""

import hashlib
from typing import Annotated

from cachetools import TTLCache
from fastapi import Depends, Request

from assistant import tracing
from assistant.clock import epoch_s
from assistant.errors import Unauthenticated
from assistant.settings import SecuritySettings
from assistant.stores.api_keys import ApiKeyRepository
from assistant.types import Principal, RequestContext
from serve_app.api.services import Services

CACHE_S = 15.0
"""A revoked key works for at most this long."""
CACHE_KEYS = 4096
HINT = "Send `Authorization: Bearer <key>`; `ai-assistant keys create` makes one."


class Authenticator:
    """Resolves keys through the repository, with a short memory for good and bad ones."""

    def __init__(self, settings: SecuritySettings, keys: ApiKeyRepository) -> None:
        self._settings = settings
        self._keys = keys
        self._known: TTLCache[bytes, Principal | None] = TTLCache(CACHE_KEYS, CACHE_S)

    async def principal(self, authorization: str | None) -> Principal:
        """Raises Unauthenticated, and StoreUnavailable for a key not seen lately while Postgres is away."""
        if self._settings.auth == "none":
            return Principal("local", "anonymous", self._settings.local_groups)
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise Unauthenticated("This call needs an API key.", hint=HINT)
        # Only a digest is kept: a dump of this process must not give keys away.
        digest = hashlib.sha256(secret.strip().encode("utf-8", "replace")).digest()
        if digest not in self._known:
            self._known[digest] = await self._keys.resolve(secret.strip())
        principal = self._known.get(digest)
        if principal is None:
            raise Unauthenticated("The API key is unknown, revoked or expired.", hint=HINT)
        return principal


async def get_services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def get_principal(request: Request) -> Principal:
    authenticator: Authenticator = request.app.state.authenticator
    principal = await authenticator.principal(request.headers.get("authorization"))
    request.state.principal_id = principal.id
    return principal


Graph = Annotated[Services, Depends(get_services)]
Caller = Annotated[Principal, Depends(get_principal)]


async def get_context(request: Request, graph: Graph, principal: Caller) -> RequestContext:
    """The context of this request. Its deadline is the server's; no header of the client moves it."""
    limit_s = graph.live.current.request_timeout_s or graph.settings.llm.request_timeout_s
    return RequestContext(
        request_id=request.state.request_id,
        principal=principal,
        deadline_s=epoch_s() + limit_s,
        traceparent=tracing.traceparent(),
    )


Context = Annotated[RequestContext, Depends(get_context)]
