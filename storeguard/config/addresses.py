"""Addresses of cameras and stores: parsing them, hiding credentials, and resolving paths."""

from __future__ import annotations

import importlib.util
import re
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from storeguard.errors import ConfigError

SCHEMES: Final = (
    "rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt", "udp", "rtp", "tcp", "file",
)  # fmt: skip
"""Schemes that a camera's address may have, in lower case."""

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
    r"(?:pass|pwd|token|secret|key|auth|user|usr|login|sig|session|credential|streamid|jwt)[\w.-]{0,40}=)"
    r"[^&\s]*?(?P<end>['\")\],:.]*)(?=[&\s]|$)",
    re.IGNORECASE,
)


# Reading an address. A password's own `/`, `?`, `#` or `@` is taken for one where no other reading
# gives a host; the rest is as in RFC 3986.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BEGINNING = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")
_SLASH_LOST = re.compile(rf"(?:{'|'.join(SCHEMES)}):", re.IGNORECASE)
_NO_SCHEME = re.compile(r"[^/@:]+:.*@")
_HOST = re.compile(r"(?P<host>\[[0-9A-Za-z:.%_-]+\]|[^\s\[\]:@/?#]*)(?::(?P<port>\d{1,5}))?")
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_QUERY = re.compile(r"(?P<key>[?&;])(?P<name>[^=&;]*)(?P<value>=?[^&;]*)")
_SAFE_IN_LOGIN = "!$&'()*+,;=%"
_SAFE_IN_PATH = "/?#[]@:!$&'()*+,;=%|{}^`\"<>\\"
_HOST_MAY_BE_EMPTY = frozenset({"udp", "rtp", "srt", "tcp"})  # they can wait for a sender
_ENCODES_PATH = frozenset({"rtsp", "rtsps", "http", "https"})
_KEY_IS_PATH = frozenset(
    {"rtmp", "rtmps"}
)  # all after the application's name lets its owner publish
_SHOWN_KEYS = frozenset(
    {"ch", "channel", "codec", "fps", "h", "height", "mode", "profile", "quality", "res"}
    | {"resolution", "stream", "subtype", "transport", "transportmode", "type", "w", "width"}
)
_SECRET_KEYS = frozenset(
    {"auth", "key", "passphrase", "password", "pwd", "streamid", "token", "user", "usr"}
)
_ENCODE_HINT = "write a password's special characters percent-encoded: @ as %40, / as %2F, ? as %3F"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a camera's video comes from: a path, or an address with one of `SCHEMES`.

    `str` and `repr` give `shown`, so an address can be put into any message.

    Attributes:
        scheme: in lower case; empty for a path.
        opens: what FFmpeg is given, with the credentials. Never show it.
        shown: the address without credentials, stream keys and unknown query values.
    """

    scheme: str
    opens: str
    shown: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address as a user typed it.

        Raises:
            ConfigError: it is no address; the message holds nothing of it but its scheme.
        """
        if control := _CONTROL.search(text):
            raise ConfigError(
                f"expected an address without control characters, found {control[0]!r} at "
                f"position {control.start()}"
            )
        beginning = _BEGINNING.match(text)
        if beginning is None:
            return cls._path(text)
        scheme, rest = beginning["scheme"].lower(), text[beginning.end() :]
        if scheme not in SCHEMES:
            raise ConfigError(f"expected a path or {_one_of_schemes()}, found {scheme}://")
        if scheme == "file":
            host, slash, path = rest.partition("/")
            if host not in {"", "localhost"} or not path:
                raise ConfigError("expected file:///path/of/the/video, found another form of it")
            return cls._path(f"{slash}{unquote(path)}")
        login, host, tail = _split(scheme, rest)
        opens = f"{host}{quote(tail, safe=_SAFE_IN_PATH) if scheme in _ENCODES_PATH else tail}"
        if login is not None:
            opens = f"{quote(_ESCAPE.sub('%25', login), safe=_SAFE_IN_LOGIN + ':')}@{opens}"
        hidden = "***@" if login else "@" if login == "" else ""
        # A further @ may end a password in which this reading saw a host and a path.
        rest_shown = "***" if "@" in tail else f"{hidden}{host}{_shown_tail(scheme, tail)}"
        shown = f"{scheme}://{rest_shown}"
        return cls(scheme, f"{scheme}://{opens}", shown)

    @classmethod
    def _path(cls, text: str) -> Address:
        if slash_lost := _SLASH_LOST.match(text):
            raise ConfigError(
                f"expected {slash_lost[0].lower()}// at its start, found {slash_lost[0]} without "
                "two slashes; put ./ before the name of a file that begins like that"
            )
        if _NO_SCHEME.match(text):
            raise ConfigError(
                f"expected {_one_of_schemes()} before a user and password, found none; put ./ "
                "before the name of a file with : and @"
            )
        return cls("", text, redact(text))

    @property
    def is_path(self) -> bool:
        """Whether it names a file, a folder or a device of this machine."""
        return not self.scheme

    def __str__(self) -> str:
        return self.shown

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"


def _split(scheme: str, rest: str) -> tuple[str | None, str, str]:
    """Credentials (None: there are none), host with port, and all after them."""
    authority = _AUTHORITY.match(rest)
    end = authority.end() if authority else 0
    at = rest.rfind("@", 0, end)
    if at < 0 and not _is_host(scheme, rest[:end]):
        at = rest.rfind("@")
        after = _AUTHORITY.match(rest, at + 1)
        end = after.end() if after else end
    host = rest[at + 1 : end]
    if not _is_host(scheme, host):
        raise ConfigError(
            f"expected {scheme}://user:password@host:port/path, with a host and a port of 1 to "
            f"65535, found neither in {scheme}://***; {_ENCODE_HINT}"
        )
    return (rest[:at] if at >= 0 else None), host, rest[end:]


def _is_host(scheme: str, text: str) -> bool:
    match = _HOST.fullmatch(text)
    if match is None or not (match["host"] or scheme in _HOST_MAY_BE_EMPTY):
        return False
    return match["port"] is None or 1 <= int(match["port"]) <= 65_535


def _shown_tail(scheme: str, tail: str) -> str:
    path, mark, query = tail.partition("?")
    path, fragment, _ = path.partition("#")
    if fragment:
        return f"{_shown_path(scheme, path)}#***"
    query, fragment, _ = query.partition("#")
    shown = _QUERY.sub(_shown_parameter, f"{mark}{query}")
    return f"{_shown_path(scheme, path)}{shown}{'#***' if fragment else ''}"


def _shown_path(scheme: str, path: str) -> str:
    if scheme in _KEY_IS_PATH and path.count("/") > 1:
        path = f"/{path.split('/')[1]}/***"
    secret = _SECRET_QUERY.search(path)
    return path if secret is None else f"{path[: secret.end('key')]}***"


def _shown_parameter(match: re.Match[str]) -> str:
    name = match["name"].lower()
    if name in _SHOWN_KEYS:
        return match[0]
    named = name in _SECRET_KEYS and match["value"]
    return f"{match['key']}{match['name']}=***" if named else f"{match['key']}***"


def _one_of_schemes() -> str:
    return f"one of {', '.join(f'{scheme}://' for scheme in SCHEMES)}"


def shown(address: str) -> str:
    """A camera's address as it may be shown, whatever it holds."""
    try:
        return Address.parse(address).shown
    except ConfigError:
        beginning = _BEGINNING.match(address)
        return f"{beginning[0].lower()}***" if beginning else "***"


def reason_of(error: BaseException) -> str:
    """What an operating system or FFmpeg reported, or the error's class.

    The text of other people's exceptions may quote an address, so it is not used.
    """
    message = getattr(error, "strerror", None)
    return redact(message) if isinstance(message, str) and message else type(error).__name__


def trace_of(error: BaseException) -> str:
    """Where an unexpected error was raised, without its text, which may quote an address."""
    lines = traceback.format_tb(error.__traceback__)
    return f"{type(error).__name__}\n{''.join(lines)}".rstrip()


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
        ConfigError: the package is not installed or has no such file, or the address is none.
    """
    if source.startswith("package:"):
        return _packaged(source)
    if not Address.parse(source).is_path or _BEGINNING.match(source):
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
