"""The `storeguard` command, one file a group of commands."""

from storeguard.cli.main import main

__all__ = ["main"]
