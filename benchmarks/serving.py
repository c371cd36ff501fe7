"""``python -m benchmarks serving MODEL``: requests a second, waiting times and memory of ``domainbridge serve``.

The service runs in a process of its own; clients are threads with a connection each. Every answer is looked at.
"""

import argparse
import http.client
import io
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

_REPORTS = 10


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks serving", description=__doc__)
    parser.add_argument("model", type=Path, help="a model folder or an exported file")
    parser.add_argument("--image", type=Path, help="an image file to send; default: 64x48 pixels of noise, as PNG")
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--output", default="class")
    chosen = parser.parse_args(arguments)
    content = chosen.image.read_bytes() if chosen.image else _noise()
    command = [sys.executable, "-m", "domainbridge", "serve", str(chosen.model), "--port", "0", "--queue", "64"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            port = _port_of(process)
            measure(process.pid, port, content, chosen.requests, chosen.clients, chosen.output)
        finally:
            process.send_signal(signal.SIGINT)
    return 0


def measure(process: int, port: int, content: bytes, requests: int, clients: int, output: str) -> None:
    """Send the requests and print the figures."""
    waits: list[float] = []
    failures: list[int] = []
    for _ in range(50):  # the first requests fill caches
        _send(http.client.HTTPConnection("127.0.0.1", port), content, output)
    first = memory(process)
    print(f"{'requests':>10} {'a second':>10} {'memory, MiB':>12}")
    print(f"{0:>10} {'':>10} {first / 2**20:>12.1f}")
    start, done = time.perf_counter(), 0
    for _ in range(_REPORTS):
        part, begun = requests // _REPORTS, time.perf_counter()
        shares = [part // clients + (client < part % clients) for client in range(clients)]
        threads = [
            threading.Thread(target=_client, args=(port, content, output, share, waits, failures)) for share in shares
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done += part
        rate = part / (time.perf_counter() - begun)
        print(f"{done:>10} {rate:>10.1f} {memory(process) / 2**20:>12.1f}", flush=True)
    seconds = time.perf_counter() - start
    median, most = np.percentile(waits, [50, 99])
    print(f"{done / seconds:.1f} requests a second, {clients} clients, {len(failures)} failed {sorted(set(failures))}")
    print(f"median wait {1000 * median:.1f} ms, 99 % below {1000 * most:.1f} ms")
    print(f"memory {(memory(process) - first) / 2**20:+.1f} MiB over {done} requests")


def memory(process: int) -> int:
    """Resident bytes of a process (Linux)."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert match is not None
    return 1024 * int(match[1])


def _client(port: int, content: bytes, output: str, requests: int, waits: list[float], failures: list[int]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    for _ in range(requests):
        start = time.perf_counter()
        status = _send(connection, content, output)
        waits.append(time.perf_counter() - start)
        if status != 200:
            failures.append(status)
    connection.close()


def _send(connection: http.client.HTTPConnection, content: bytes, output: str) -> int:
    connection.request("POST", f"/predict?output={output}", content)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def _noise() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _port_of(process: "subprocess.Popen[str]") -> int:
    assert process.stderr is not None
    for line in process.stderr:
        if match := re.search(r"http://[^ ]+:(\d+)", line):
            return int(match[1])
    raise SystemExit("the service did not start")
