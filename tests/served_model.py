"""A small model behind `transformers serve`: a real OpenAI-compatible server on loopback."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import guide_rl


@contextlib.contextmanager
def served_demo_model(folder: Path) -> Iterator[tuple[str, Path]]:
    """Serve a copy of the demo's model; yields the base URL and the model's folder, which is its name there."""
    model = folder / "model"
    shutil.copytree(Path(guide_rl.__file__).parent / "demo" / "base_model", model)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).parent / "transformers", "serve", model, "--device", "cpu", "--dtype", "float32"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub")}
    log_file = folder / "serve.log"
    with log_file.open("wb") as log:
        whole = [*map(str, command), "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(whole, stdout=log, stderr=log, env=environment)
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            assert server.poll() is None, log_file.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", model
    finally:
        server.kill()
        server.wait()
