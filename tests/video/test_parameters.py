"""Parameter sets in H.264 and HEVC streams."""

from __future__ import annotations

import pytest

from storeguard.video.parameters import is_annex_b, parameter_sets

# Unit headers: H.264 SPS 0x67, PPS 0x68, IDR 0x65; HEVC VPS 0x40, SPS 0x42, PPS 0x44, IDR 0x26.
SPS, PPS, IDR = b"\x67abc", b"\x68d", b"\x65" + b"picture"
VPS_265, SPS_265, PPS_265, IDR_265 = b"\x40\x01v", b"\x42\x01s", b"\x44\x01p", b"\x26\x01picture"
LONG, SHORT = b"\x00\x00\x00\x01", b"\x00\x00\x01"


@pytest.mark.parametrize(
    ("codec", "data", "found"),
    [
        ("h264", LONG + SPS + LONG + PPS + LONG + IDR, (SPS, PPS)),
        ("h264", SHORT + SPS + SHORT + PPS + SHORT + IDR, (SPS, PPS)),
        ("h264", LONG + SPS + LONG + PPS, (SPS, PPS)),  # extradata: nothing behind them
        ("h264", LONG + IDR, ()),
        ("h264", b"", ()),
        (
            "hevc",
            LONG + VPS_265 + LONG + SPS_265 + LONG + PPS_265 + LONG + IDR_265,
            (VPS_265, SPS_265, PPS_265),
        ),
        # A large picture is not searched to its end, and its cut unit is no parameter set.
        ("h264", LONG + SPS + LONG + PPS + LONG + IDR + bytes(range(1, 200)) * 100, (SPS, PPS)),
    ],
)
def test_parameter_sets(codec: str, data: bytes, found: tuple[bytes, ...]):
    assert parameter_sets(codec, data) == found


@pytest.mark.parametrize(
    ("codec", "extradata", "annex_b"),
    [
        ("h264", b"\x01\x64\x00", False),  # avcC
        ("h264", LONG + SPS, True),
        ("hevc", b"", True),  # in the stream alone
        ("vp8", b"", False),
    ],
)
def test_is_annex_b(codec: str, extradata: bytes, annex_b: bool):
    assert is_annex_b(codec, extradata) == annex_b
