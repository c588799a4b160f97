"""Small HTTP servers on loopback that behave like cameras and relays."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av

Answer = Callable[[BaseHTTPRequestHandler], None]
"""Answers one GET request."""


@contextmanager
def http_server(answer: Answer) -> Iterator[str]:
    """A server whose every GET is answered by `answer`; yields its address without a last `/`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                answer(self)
            except OSError:  # the reader has closed the connection
                return

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def begin(request: BaseHTTPRequestHandler, content_type: str, length: int | None = None) -> None:
    """Send the head of an answer; without `length` it lasts until the connection closes."""
    request.send_response(200)
    request.send_header("Content-Type", content_type)
    if length is not None:
        request.send_header("Content-Length", str(length))
    request.end_headers()


class LiveHls:
    """A live HLS stream: a playlist whose last segments are those that are complete by now.

    Args:
        film: the video to serve, cut at its keyframes.
        folder: an empty folder for the segments.
        segment_s: the length of a segment in seconds.
    """

    def __init__(self, film: Path, folder: Path, *, segment_s: int) -> None:
        options = {"hls_time": str(segment_s), "hls_list_size": "0"}
        with (
            av.open(str(film)) as source,
            av.open(str(folder / "all.m3u8"), "w", format="hls", options=options) as out,
        ):
            copy = out.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = copy
                    out.mux(packet)
        self._folder = folder
        self._segment_s = segment_s
        self._began_s = time.monotonic()
        self.num_playlists = 0
        self.is_over = False  # whether the playlist declares its end

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer a request for the playlist or for a segment."""
        name = request.path.strip("/").partition("?")[0]
        if not name.endswith(".m3u8"):
            content = (self._folder / name).read_bytes()
            begin(request, "video/mp2t", len(content))
            request.wfile.write(content)
            return
        self.num_playlists += 1
        text = self._playlist().encode()
        begin(request, "application/vnd.apple.mpegurl", len(text))
        request.wfile.write(text)

    def _playlist(self) -> str:
        num_complete = 3 + int((time.monotonic() - self._began_s) / self._segment_s)
        shown = range(max(0, num_complete - 4), num_complete)
        lines = [
            "#EXTM3U",
            "#EXT-X-VERSION:3",
            f"#EXT-X-TARGETDURATION:{self._segment_s}",
            f"#EXT-X-MEDIA-SEQUENCE:{shown.start}",
        ]
        for number in shown:
            lines += [f"#EXTINF:{self._segment_s}.0,", f"all{number}.ts"]
        if self.is_over:
            lines.append("#EXT-X-ENDLIST")
        return "\n".join(lines) + "\n"
