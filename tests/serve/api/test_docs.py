"""The API's description as a page."""

from __future__ import annotations

from tests.serve.api.memory_system import (
    Client,
)


def test_docs_need_nothing_from_elsewhere(client: Client) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "/api/v1/events/{event_id}/clip" in page.text
    assert "http" not in page.text.replace('charset="utf-8"', "").lower().split("<body>")[0]
    for outside in ('src="', "@import", "cdn"):
        assert outside not in page.text
    paths = client.get("/openapi.json").json()["paths"]
    assert "/api/v1/cameras/{camera_id}/recordings" in paths
