"""The gateway as an ASGI application: HTTP in front of the daemon's gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from daemon.gateway import api_page, errors, facts, mcp, openai
from daemon.gateway.context import Context, GatewayContext
from daemon.gateway.daemon_calls import DaemonCalls
from daemon.gateway.observed import Observed
from daemon.gateway.page.routes import page_router
from daemon.gateway.security import Security
from daemon.metrics import GatewayMetrics
from daemon.settings import GatewaySettings
from lte_runtime.places import Places


def create_app(settings: GatewaySettings, daemon: DaemonCalls, metrics: GatewayMetrics) -> FastAPI:
    """All routes, behind `Security`, counted by `metrics`. The application closes `daemon` when it ends."""

    tools = mcp.create_server(daemon, mcp.caller_of_request)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with tools.session_manager.run():
            yield
        await daemon.close()

    # FastAPI's own pages of the API load scripts of other sites.
    app = FastAPI(title="lte-daemon", lifespan=lifespan, docs_url=None, redoc_url=None)
    most = settings.max_streams
    app.state.context = Context(
        settings, daemon, Places(most, f"{most} answers are streamed already: come back later")
    )
    app.add_middleware(
        Security,
        hosts=settings.hosts,
        max_body_bytes=settings.max_body_bytes,
        max_concurrent=settings.max_concurrent,
    )
    app.add_middleware(Observed, metrics=metrics)
    errors.install(app)
    app.include_router(openai.router)
    app.include_router(facts.router)
    app.include_router(api_page.router)
    app.router.routes.extend(mcp.routes(tools, settings.max_body_bytes))
    _add_health(app)
    app.include_router(page_router())
    return app


def _add_health(app: FastAPI) -> None:
    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        """The gateway runs."""
        return {"status": "ok"}

    @app.get("/readyz", include_in_schema=False)
    async def readyz(context: GatewayContext) -> JSONResponse:
        """The daemon behind it answers questions."""
        serving = await context.daemon.is_serving()
        return JSONResponse({"status": "ok" if serving else "daemon not serving"}, 200 if serving else 503)
