"""What the application adds around the API, and where Serve binds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from ray.serve.config import HTTPOptions

from serve.app import RUN_HEADER, NamedRun, set_serve_defaults
from storeguard.config.store import ApiSettings


@pytest.fixture
def serve_defaults() -> Iterator[None]:
    """Serve's own host and port, put back after the test."""
    before = HTTPOptions()
    yield
    set_serve_defaults(ApiSettings(host=before.host or "127.0.0.1", port=before.port))


@pytest.mark.usefixtures("serve_defaults")
def test_serve_binds_the_configured_port_and_host() -> None:
    set_serve_defaults(ApiSettings(host="127.0.0.2", port=8123))

    options = HTTPOptions.model_validate({})  # what `serve run` starts Serve with
    assert (options.host, options.port) == ("127.0.0.2", 8123)
    assert HTTPOptions(port=9000).port == 9000


def test_every_response_names_its_run() -> None:
    app = FastAPI()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"first"
            yield b"second"

        return StreamingResponse(parts())

    app.add_middleware(NamedRun, run_id="run-7")

    async def answers() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            return [await client.get(path) for path in ("/stream", "/nothing")]

    found, missing = asyncio.run(answers())

    assert found.content == b"firstsecond"
    assert found.headers[RUN_HEADER] == missing.headers[RUN_HEADER] == "run-7"
