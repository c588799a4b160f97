"""The port of a store, before anything is started."""

from __future__ import annotations

import socket

import pytest

from serve.runner import require_free_port, running_store
from storeguard.config.store import ApiSettings, StoreConfig
from storeguard.errors import ConfigError


def test_a_taken_port_is_reported_before_anything_starts() -> None:
    reported: list[str] = []
    with socket.socket() as other:
        # as Serve's proxies bind: a second store would share the port
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        config = StoreConfig(api=ApiSettings(port=port))

        with (
            pytest.raises(ConfigError, match=f"port {port} cannot be used: Address already in use"),
            running_store(config, say=reported.append),
        ):
            pass

    assert reported == []
    require_free_port(config.api)  # free again


def test_an_address_of_another_machine_is_reported() -> None:
    with pytest.raises(ConfigError, match=r"api.port: 192\.0\.2\.1 port 8080 cannot be used"):
        require_free_port(ApiSettings(host="192.0.2.1", token="0123456789abcdef"))
