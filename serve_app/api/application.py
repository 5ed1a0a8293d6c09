"""The FastAPI application from its services: middleware, handlers and routers in order."""

from fastapi import FastAPI
from starlette.middleware import Middleware

from serve_app.api import (
    deployments,
    errors,
    feedback,
    health,
    knowledge,
    learning,
    openai_chat,
    openai_models,
    page,
    rfc,
    search,
)
from serve_app.api.admission import Admission
from serve_app.api.auth import Authenticator
from serve_app.api.middleware import AdmissionLimit, BodyLimit, RequestScope
from serve_app.api.services import Services


def create_app(services: Services, *, echo_request_id: bool = True) -> FastAPI:
    """The whole API. `echo_request_id` False: the server in front adds that header itself."""
    serve = services.settings.serve
    app = FastAPI(
        title="AI Assistant",
        version=health.version(),
        summary="Cited answers, search and RFC drafts over an organisation's own knowledge.",
        # Both pages load scripts from a CDN; the schema at /openapi.json stays.
        docs_url=None,
        redoc_url=None,
        middleware=[
            Middleware(RequestScope, meter=services.meter, echo_id=echo_request_id),
            Middleware(BodyLimit, limit=serve.max_body_bytes),
            Middleware(
                AdmissionLimit,
                work=Admission(serve.max_ongoing_requests, serve.max_queued_requests),
                watching=Admission(serve.max_ongoing_requests, 0),
            ),
        ],
    )
    app.state.services = services
    app.state.authenticator = Authenticator(services.settings.security, services.keys)
    app.state.health = health.HealthBoard(services)
    errors.install(app)
    for part in (openai_chat, openai_models, search, knowledge, rfc, feedback, learning, deployments, health):
        app.include_router(part.router)
    page.install(app)
    return app
