"""Addresses of cameras and stores: hiding credentials, and resolving paths."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from storeguard.errors import ConfigError

# People type passwords unescaped, with `@`, `:`, `/` and quotes in them, so the credentials end at
# the last `@` of the word, never at the first. Hiding a host is better than showing a password: a
# colon that may belong to a port or to a password is taken to belong to a password.
_WORD = re.compile(r"\S+")
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]{0,30}://")
_AUTHORITY = re.compile(r"[^/?#]*")
_SPACED_CREDENTIALS = re.compile(
    r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]{0,30}://)(?!\*\*\*@)[^\s/@:]*:[^/\n]*[^/\s]@(?=\S)"
)
_BARE_CREDENTIALS = re.compile(r"(?<![^\s'\"(\[=,])[^\s/:@'\"(\[=,]+:[^\s/@]+(?:@[^\s/@]*)*@(?=\w)")
_SECRET_QUERY = re.compile(
    r"(?P<key>[?&;/,][\w.-]{0,40}?"
    r"(?:pass|pwd|token|secret|key|auth|user|usr|login|sig|session|credential)[\w.-]{0,40}=)"
    r"[^&\s]*?(?P<end>['\")\],:.]*)(?=[&\s]|$)",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """The text with credentials in addresses replaced by ``***``.

    Hidden are the user and password before an ``@``, and the values of query keys such as
    ``token``. In doubt more is hidden than necessary.

    >>> redact("rtsp://user:secret@10.0.0.7/stream1?token=abc")
    'rtsp://***@10.0.0.7/stream1?token=***'
    """
    hidden = _WORD.sub(lambda m: _hide_in_word(m[0]), text)
    hidden = _SPACED_CREDENTIALS.sub(lambda m: f"{m['scheme']}***@", hidden)
    hidden = _BARE_CREDENTIALS.sub("***@", hidden)
    return _SECRET_QUERY.sub(lambda m: f"{m['key']}***{m['end']}", hidden)


def _hide_in_word(word: str) -> str:
    """Credentials before an ``@`` hidden in a text without spaces, in linear time."""
    last_at = word.rfind("@", 0, -1)
    shown, done = [], 0
    for scheme in _SCHEME.finditer(word):
        start = scheme.end()
        if start > last_at:
            break
        if start <= done:
            continue
        authority = _AUTHORITY.match(word, start)
        end = authority.end() if authority else start
        at = last_at if word.find(":", start, end) >= 0 else word.rfind("@", start, end)
        if at >= 0:
            shown.append(f"{word[done:start]}***")
            done = at
    return "".join(shown) + word[done:]


def resolve_source(source: str) -> str:
    """A camera's source with a relative path made absolute.

    ``package:NAME/PATH`` is a file that an installed Python package ships. Addresses with a scheme
    and absolute paths stay as they are; other paths are taken from the working directory.

    Raises:
        ConfigError: the package is not installed or has no such file.
    """
    if source.startswith("package:"):
        return _packaged(source)
    if "://" in source:
        return source
    return str(Path(source).expanduser().absolute())


def _packaged(source: str) -> str:
    package, _, inside = source.removeprefix("package:").partition("/")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # not a module name, or its parent is missing
        spec = None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        if (file := Path(folder) / inside).is_file():
            return str(file)
    raise ConfigError(
        f"source {source!r}: expected a file of an installed package, "
        + (f"{package!r} has no {inside!r}" if folders else f"{package!r} is not installed")
    )
