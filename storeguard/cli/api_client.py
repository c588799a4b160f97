"""A small client of the HTTP API, for the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from storeguard.errors import NotFoundError, QueryError, StoreError
from storeguard.files import write_atomically

DEFAULT_URL = "http://127.0.0.1:8080"
_PAGE = 1000


class ApiClient:
    """Client of one running store.

    Args:
        url: the store's address, e.g. ``http://127.0.0.1:8080``.
        token: bearer token; None if the API needs none.

    Every method raises StoreError if the API does not answer, NotFoundError if something does not
    exist, and QueryError if the API refuses the request, with the API's own message.
    """

    def __init__(self, url: str = DEFAULT_URL, *, token: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=30)
        self._url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def events(self, **query: Any) -> list[dict[str, Any]]:
        """Events, newest first; query parameters as in ``GET /api/v1/events``, without None."""
        parameters = {name: value for name, value in query.items() if value is not None}
        found: list[dict[str, Any]] = self._get("events", parameters)["events"]
        return found

    def events_pages(self, **query: Any) -> Iterator[list[dict[str, Any]]]:
        """All events of a query, newest first, page by page; `limit` is the size of a page.

        A page may be empty although more follow.
        """
        given = {name: value for name, value in query.items() if value is not None}
        parameters = {"limit": _PAGE} | given
        while True:
            page = self._get("events", parameters)
            yield page["events"]
            if page.get("next_cursor") is None:
                return
            parameters["cursor"] = page["next_cursor"]

    def event(self, event_id: str) -> dict[str, Any]:
        """One event."""
        return self._get(f"events/{event_id}", {})

    def record(self, camera_id: str, command: Mapping[str, Any]) -> dict[str, Any]:
        """Start or stop recording a camera, as ``POST cameras/{id}/recordings``."""
        path = f"cameras/{camera_id}/recordings"
        answer: dict[str, Any] = self._answer("POST", path, json=dict(command)).json()
        return answer

    def save_clip(self, event_id: str, out: Path) -> list[Path]:
        """Write an event's clip, each of its files whole or not at all.

        Args:
            event_id: the event.
            out: the first file to write. Further files of a long clip are written next to it as
                ``<name>.part1.mp4`` and so on.

        Returns:
            The files written, in order of time.
        """
        clip = self.event(event_id).get("clip") or {}
        files = []
        for number in range(1 + len(clip.get("parts") or ())):
            content = self._answer(
                "GET", f"events/{event_id}/clip", params={"part": number}
            ).content
            file = out.with_stem(f"{out.stem}.part{number}") if number else out
            write_atomically(file, content)
            files.append(file)
        return files

    def _get(self, path: str, query: Mapping[str, Any]) -> dict[str, Any]:
        document: dict[str, Any] = self._answer("GET", path, params=query).json()
        return document

    def _answer(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, f"/api/v1/{path}", **request)
        except httpx.HTTPError as error:
            raise StoreError(f"{self._url} does not answer: {error}") from None
        if answer.is_success:
            return answer
        problem = answer.headers.get("content-type", "").startswith("application/problem+json")
        detail = answer.json().get("detail", answer.text) if problem else answer.text[:200]
        message = f"{self._url}: {answer.status_code}: {detail}"
        if answer.status_code == 404:
            raise NotFoundError(message)
        if answer.is_client_error:
            raise QueryError(message)
        raise StoreError(message)
