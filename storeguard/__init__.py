"""Storeguard watches the cameras of unmanned stores and keeps what matters.

`serve run storeguard:app config=store.yaml` calls `app` below. Its annotation has to be a class, so
this file does without ``from __future__ import annotations``.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict

__version__ = "0.1.0"


class AppArgs(BaseModel):
    """Arguments of `app`, given as ``key=value`` to `serve run`."""

    model_config = ConfigDict(extra="forbid")

    config: str
    """Path of the configuration file."""


def app(args: AppArgs) -> Any:
    """The whole system as a Ray Serve application.

    Args:
        args: where the configuration is.

    Raises:
        ConfigError: the configuration is wrong.
    """
    from serve.app import build, set_serve_defaults  # noqa: PLC0415, TID251 - the one edge upwards
    from storeguard.config.loading import load_config  # noqa: PLC0415

    config = load_config(args.config)
    set_serve_defaults(config.api)
    return build(config)
