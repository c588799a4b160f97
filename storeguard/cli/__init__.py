"""The `storeguard` command, one file a group of commands."""
