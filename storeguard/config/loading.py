"""Reading settings from YAML files, request bodies and (only here) the environment."""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from storeguard.config.addresses import redact, resolve_source
from storeguard.config.models import AttributeSettings, ClassifierSettings, DetectorSettings
from storeguard.config.store import ApiSettings, CameraConfig, StoreConfig
from storeguard.config.zones import Settings, ZoneConfig, ZoneList
from storeguard.errors import ConfigError

_log = logging.getLogger(__name__)

TOKEN_VARIABLE = "STOREGUARD_API_TOKEN"  # noqa: S105 - the variable's name, not its value
_SECRET_KEYS = frozenset({"token"})

S = TypeVar("S", bound=Settings)


def load_config(path: Path | str) -> StoreConfig:
    """Read a YAML configuration.

    Raises:
        ConfigError: the file is missing, is not YAML, or has a wrong value; the message names file,
            key, expected and found value, and the camera or zone.
    """
    document = _read_yaml(Path(path))
    if not isinstance(document, Mapping):
        raise ConfigError(
            f"{path}: expected a mapping with keys such as 'store' and 'cameras', "
            f"found {_kind_of(document)}"
        )
    return parse(StoreConfig, _with_environment(dict(document)), where=str(path))


def load_zones(path: Path | str) -> tuple[ZoneConfig, ...]:
    """Read a `zones:` list: a YAML list of zones, or a mapping with the only key `zones`.

    Raises:
        ConfigError: as from `load_config`.
    """
    document = _read_yaml(Path(path))
    if isinstance(document, Mapping) and set(document) == {"zones"}:
        document = document["zones"]
    if not isinstance(document, list):
        raise ConfigError(
            f"{path}: expected a list of zones, or a mapping with the only key 'zones', "
            f"found {_kind_of(document)}"
        )
    return parse(ZoneList, {"zones": document}, where=str(path)).zones


def parse(kind: type[S], document: Any, *, where: str) -> S:
    """Validate a document against a settings class.

    Args:
        kind: the class.
        document: parsed YAML or JSON.
        where: the document's name in messages (a file name, `request body`, ...).

    Raises:
        ConfigError: one line per fault, each with key, expected and found value, camera and zone.

    What is probably a mistake (a zone too small for its rule) is logged as a warning.
    """
    try:
        settings = kind.model_validate(document)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise ConfigError("\n".join(_explain(fault, document, where) for fault in faults)) from None
    for doubt in _doubts(settings):
        _log.warning("%s: %s", where, doubt)
    return settings


def _doubts(settings: Settings) -> Iterator[str]:
    """What is allowed in these settings and yet probably a mistake."""
    match settings:
        case StoreConfig():
            for camera in settings.cameras:
                yield from _doubts(camera)
        case CameraConfig():
            for zone in settings.zones:
                for doubt in zone.doubts():
                    yield f"camera {settings.id!r}: {doubt}"
        case ZoneList():
            for zone in settings.zones:
                yield from zone.doubts()


def resolve_camera(camera: CameraConfig) -> CameraConfig:
    """The camera with its source resolved (see `resolve_source`)."""
    try:
        source = resolve_source(camera.source)
    except ConfigError as error:
        raise ConfigError(f"camera {camera.id!r}: {error}") from None
    return camera.model_copy(update={"source": source})


def resolve_paths(config: StoreConfig) -> StoreConfig:
    """The configuration with all paths absolute, for processes with other working directories."""
    uri = config.storage.uri
    if uri != "embedded" and "://" not in uri:
        uri = str(Path(uri).expanduser().absolute())
    return config.model_copy(
        update={
            "data_dir": config.data_dir.expanduser().absolute(),
            "detector": _with_whole_path(config.detector),
            "classifier": _with_whole_path(config.classifier),
            "attributes": tuple(map(_with_whole_path, config.attributes)),
            "storage": config.storage.model_copy(update={"uri": uri}),
            "cameras": tuple(resolve_camera(camera) for camera in config.cameras),
        }
    )


_M = TypeVar("_M", DetectorSettings, ClassifierSettings, AttributeSettings)


def _with_whole_path(settings: _M) -> _M:
    if settings.model == "bundled":
        return settings
    return settings.model_copy(update={"model": str(Path(settings.model).expanduser().absolute())})


# --------------------------------------------------------------------------- reading


_YAML = "tag:yaml.org,2002:"
_NAMES = frozenset({"id", "store", "name"})
_READ_AS_OTHERS = frozenset(f"{_YAML}{kind}" for kind in ("int", "float", "bool", "timestamp"))
_VARIABLE = re.compile(r"\$(?P<escape>\$)?\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}")


class _Loader(yaml.SafeLoader):
    """YAML as people write it.

    It refuses a duplicate key, where PyYAML would silently keep the last one, and an address that
    an unquoted ` #` cuts. Keys that begin with `x-` are left out, names such as 001 are text,
    `${NAME}` and `!env NAME` are environment variables, and `!secret NAME` is a value of
    `secrets.yaml` beside the configuration, or the content of a file.

    Attributes:
        folder: of the configuration; relative paths of secrets start there.
    """

    folder = Path()

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        node.value = [pair for pair in node.value if not str(pair[0].value).startswith("x-")]
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _fault(
                    key,
                    "expected text as a key, found another value; {{ }} is not replaced here, "
                    "write ${NAME} for an environment variable",
                )
            if key.value in seen:
                raise _fault(key, f"the key {redact(repr(key.value))} is given twice")
            if key.tag != f"{_YAML}merge":
                seen.add(key.value)
            if key.value in _NAMES and value.tag in _READ_AS_OTHERS:
                value.tag = f"{_YAML}str"
            if key.value == "source" and isinstance(value, yaml.ScalarNode):
                _refuse_cut_address(value)
        return super().construct_mapping(node, deep=deep)

    def text(self, node: yaml.ScalarNode) -> str:
        """A string with `${NAME}` replaced; `$${NAME}` is a literal `${NAME}`."""
        return _VARIABLE.sub(
            lambda m: m[0][1:] if m["escape"] else _variable(node, m["name"]),
            str(self.construct_scalar(node)),
        )

    def variable(self, node: yaml.ScalarNode) -> str:
        """The value of `!env NAME`."""
        return _variable(node, str(self.construct_scalar(node)))

    def secret(self, node: yaml.ScalarNode) -> str:
        """The value of `!secret NAME` or `!secret FILE`."""
        name = str(self.construct_scalar(node))
        shelf = self.folder / "secrets.yaml"
        try:
            if "/" not in name and shelf.is_file():
                secrets = yaml.safe_load(shelf.read_text(encoding="utf-8"))
                if isinstance(secrets, Mapping) and isinstance(secrets.get(name), str | int):
                    return str(secrets[name])
            return (self.folder / name).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            raise _fault(
                node, f"expected the secret {name!r} in {shelf}, or a file of that name, found none"
            ) from None


_Loader.add_constructor(f"{_YAML}str", _Loader.text)
_Loader.add_constructor("!env", _Loader.variable)
_Loader.add_constructor("!secret", _Loader.secret)


def _fault(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _variable(node: yaml.Node, name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise _fault(node, f"expected the environment variable {name}, which is not set")
    return value


def _refuse_cut_address(value: yaml.ScalarNode) -> None:
    """Refuse a plain address whose rest stands after ` #`, and so is a comment."""
    end = value.end_mark
    if value.style is not None or "://" not in value.value or end.buffer is None:
        return
    rest = end.buffer[end.pointer :].split("\n", 1)[0].strip().rstrip("\0")
    if rest.startswith("#") and ("@" in rest or not rest[1:2].isspace()):
        raise _fault(value, "' #' begins a comment and cuts the address; put the address in quotes")


def _read_yaml(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot read the configuration: {error}") from None
    try:
        loader = _Loader(text)
        loader.folder = path.parent
        return loader.get_single_data()
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {_yaml_fault(error)}") from None


def _yaml_fault(error: yaml.YAMLError) -> str:
    """Position and problem, without the line itself, which may contain a password."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        return f"line {mark.line + 1}, column {mark.column + 1}: {what}"
    return redact(" ".join(str(error).split()))


def _with_environment(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the API's token from the environment, unless it has its own."""
    api, token = document.get("api"), os.environ.get(TOKEN_VARIABLE)
    if token and (api is None or isinstance(api, Mapping)) and not (api or {}).get("token"):
        parse(ApiSettings, {"token": token}, where=f"environment variable {TOKEN_VARIABLE}")
        document["api"] = {**(api or {}), "token": token}
    return document


# --------------------------------------------------------------------------- explaining


def _explain(fault: ErrorDetails, document: Any, where: str) -> str:
    location = fault["loc"]
    key = ".".join(
        f"[{part}]" if isinstance(part, int) else str(part) for part in location
    ).replace(".[", "[")
    owner = _owner(document, location)
    return f"{where}: {key or 'top level'}{owner}: {_complaint(fault)}{_found(fault)}"


def _complaint(fault: ErrorDetails) -> str:
    if fault["type"] == "extra_forbidden":
        known = {name for kind in _descendants(Settings) for name in kind.model_fields}
        near = difflib.get_close_matches(str(fault["loc"][-1]), sorted(known), n=1)
        return "there is no such key" + (f"; did you mean {near[0]!r}?" if near else "")
    return fault["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")


def _found(fault: ErrorDetails) -> str:
    """` (found 7)`, or an empty string if the value is absent, secret or not a single value."""
    value = fault["input"]
    if fault["type"] in {"missing", "extra_forbidden"} or isinstance(value, BaseModel):
        return ""
    if _SECRET_KEYS.intersection(map(str, fault["loc"])):
        return f" (found {len(value)} characters)" if isinstance(value, str) else ""
    if fault["loc"][-1:] == ("source",) and isinstance(value, str):
        return ""  # the complaint names what was found, without the credentials
    if isinstance(value, Mapping | list | tuple):
        # A wrong number of items is in the message already.
        return f" (found {_kind_of(value)})" if fault["type"].endswith("_type") else ""
    return f" (found {'nothing' if value is None else _shown(value)})"


def _owner(document: Any, location: tuple[int | str, ...]) -> str:
    """` in camera 'x', zone 'y'` for the location of a fault, or an empty string."""
    names: list[str] = []
    here, kind = document, ""
    if isinstance(document, Mapping) and "id" in document:
        names.append(f"camera {_shown(document['id'])}")  # a request body
    for part in location:
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            continue
        if isinstance(part, str):
            kind = {"cameras": "camera", "zones": "zone"}.get(part, "")
        elif kind and isinstance(here, Mapping) and "id" in here:
            names.append(f"{kind} {_shown(here['id'])}")
    return f" in {', '.join(names)}" if names else ""


def _descendants(kind: type[Settings]) -> Iterator[type[Settings]]:
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)


def _kind_of(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            return _shown(value)


def _shown(value: Any) -> str:
    return redact(repr(value))
