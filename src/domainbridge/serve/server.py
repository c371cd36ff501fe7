"""``serve``: a model behind HTTP, until it is stopped."""

import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from domainbridge.errors import RecipeError
from domainbridge.evaluation.exported import ExportedPredictor
from domainbridge.tools.open_model import open_model

__all__ = ["serve_model"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve_model(
    model: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    megabytes: float = 20,
    megapixels: float = 25,
    seconds: float = 30,
    places: int = 16,
    device: str = "auto",
    precision: str = "float32",
    report: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve a model folder or a file until SIGINT, after which it returns, or SIGTERM, which ends the process.

    Requests in progress get five seconds to be answered first.

    Args:
        model: path to a model folder, an .onnx or a .pt2 file.
        host: address to listen at; anything but loopback is open to the network, without passwords.
        port: to listen at; 0 takes a free one.
        megabytes: largest body of a request, MiB.
        megapixels: largest image of a request, millions of pixels.
        seconds: in which the body must arrive, and again in which the result must be there.
        places: requests that may be here at once; more get 503.
        device: as for ``load_model``.
        precision: as for ``load_model``.
        report: gets a line for each remark.

    Raises:
        RecipeError: the packages are not installed, or the address cannot be used.
        ModelError: as for ``load_model``.
    """
    try:
        import uvicorn

        from domainbridge.serve.app import Limits, service
    except ImportError as error:
        raise RecipeError(f"serve needs more packages: pip install 'domainbridge[serve]' ({error})") from error
    limits = Limits(int(megabytes * 2**20), int(megapixels * 1e6), seconds, places)
    predictor = open_model(model, device=device, precision=precision)
    if isinstance(predictor, ExportedPredictor) and predictor.config.remark is not None:
        report(f"note: {predictor.config.remark}")
    config = uvicorn.Config(
        service(predictor, model.name, limits),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
    )
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Listens at once, before the address is told: requests wait from now on.
        listener = socket.create_server((host, port), family=family, backlog=config.backlog)
    except OSError as error:
        reason = error.strerror or error
        raise RecipeError(f"--host {host} --port {port}: {reason}; choose another port or address") from error
    if host not in _LOOPBACK:
        report(f"note: {host} can be reached from other machines, and nobody is asked for a password")
    shown = f"[{host}]" if ":" in host else host
    report(f"serving {model} at http://{shown}:{listener.getsockname()[1]} (stop with Ctrl-C)")
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again after its orderly end
        uvicorn.Server(config).run(sockets=[listener])
