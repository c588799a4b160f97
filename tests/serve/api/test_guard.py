"""Who may use the API: tokens, sessions, origins."""

from __future__ import annotations

import pytest

from tests.serve.api.memory_system import (
    TOKEN,
    Client,
    assert_problem,
)


@pytest.mark.parametrize(
    "path",
    ["/api/v1/events", "/api/v1/cameras/table/live", "/metrics", "/docs", "/openapi.json", "/x"],
)
def test_everything_needs_the_token(locked: Client, path: str) -> None:
    refused = locked.get(path)
    assert_problem(refused, 401, "Bearer")
    assert refused.headers["www-authenticate"].startswith("Bearer")
    for wrong in (f"Bearer {TOKEN}x", "Bearer ", f"Basic {TOKEN}", "Bearer \xe9"):
        response = locked.get(path, headers={"Authorization": wrong.encode("latin-1")})
        assert_problem(response, 401)
    assert_problem(locked.get(f"{path}?token={TOKEN}"), 401)
    right = locked.get(path, headers={"Authorization": f"Bearer {TOKEN}"})
    assert right.status_code == (404 if path == "/x" else 200)


def test_health_has_no_details_without_the_token(locked: Client) -> None:
    parts = locked.get("/healthz").json()["parts"]
    assert all(set(part) == {"status"} for part in parts.values())
    parts = locked.get("/healthz", headers={"Authorization": f"Bearer {TOKEN}"}).json()["parts"]
    assert "detail" in parts["journal"]


def test_session_cookie(locked: Client) -> None:
    assert_problem(locked.post("/api/v1/session", json={"token": "guess"}), 401, "token")
    granted = locked.post("/api/v1/session", json={"token": TOKEN})
    assert granted.status_code == 204
    cookie = granted.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert TOKEN not in cookie
    assert locked.get("/api/v1/events").status_code == 200  # the client keeps it
    value = locked.cookies["storeguard_session"]
    expiry, _, seal = value.partition(".")
    for forged in (f"{int(expiry) + 1}.{seal}", f"{expiry}.{'0' * 64}", expiry, "", "1.x"):
        locked.cookies.clear()
        response = locked.get("/api/v1/events", headers={"Cookie": f"storeguard_session={forged}"})
        assert response.status_code == 401, forged


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:8080"}, 200),
        ({"Host": "[::1]:8080"}, 200),
        ({"Host": "evil.example"}, 421),  # DNS rebinding
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Origin": "http://127.0.0.1:8080"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Content-Length": "many"}, 400),
    ],
)
def test_own_origin_only(client: Client, headers: dict[str, str], status: int) -> None:
    response = client.get("/api/v1/cameras", headers=headers)
    assert response.status_code == status
    assert "access-control-allow-origin" not in response.headers
