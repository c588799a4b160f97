"""What all system tests share: a Ray that gets its turn, and videos as long as a busy machine needs."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import av
import pytest

# Clusters that tests start get what a store gives its own Ray: workers as urgent as all else here.
os.environ.setdefault("RAY_worker_niceness", "0")
# Serve kills a proxy that was not up after three times five seconds, and begins anew.
os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
os.environ.setdefault("RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S", "60")


def _copied(source: Path, copy: Path, *, times: int = 1, packets: int | None = None) -> Path:
    """A video's packets (all, or the first so many) in another file, several times on end."""
    with av.open(str(copy), "w") as out:
        stream = None
        for number in range(times):
            with av.open(str(source)) as video:
                original = video.streams.video[0]
                if stream is None:
                    stream = out.add_stream_from_template(original)
                lasts = original.duration
                assert lasts is not None
                whole = (packet for packet in video.demux(original) if packet.size)
                for packet in islice(whole, packets):
                    assert packet.pts is not None
                    assert packet.dts is not None
                    packet.pts += number * lasts
                    packet.dts += number * lasts
                    packet.stream = stream
                    out.mux(packet)
    return copy


@pytest.fixture(scope="session")
def long_visit(long_visit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The man in the car in slow motion for half an hour, longer than all tests of a file take."""
    return _copied(long_visit, tmp_path_factory.mktemp("video") / "half_an_hour.mp4", times=6)


@pytest.fixture(scope="session")
def visits(long_visit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """His first 20 s, to be looped: visits that end, with time for several answers in each."""
    return _copied(long_visit, tmp_path_factory.mktemp("video") / "visits.mp4", packets=200)
