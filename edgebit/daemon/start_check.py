"""What would end a daemon at its start, or leave a part of it useless, beyond what the configuration itself says."""

import shutil
from pathlib import Path

from edgebit.daemon.admission.principals import Principals
from edgebit.daemon.config.reader import read_password
from edgebit.daemon.config.sections import Config
from edgebit.daemon.connection.tls import read_validity, tls_context
from edgebit.daemon.content_filter.content_filter import ContentFilter
from edgebit.errors import ConfigError


def check_start(config: Config, model: Path | None = None) -> None:
    """Read the files that a configuration names, and write nothing.

    model: the bundle or model file, where it is known
    Raises ConfigError for the first that is wrong, OnnxError where it is what ONNX Runtime needs, BundleError where the
    model cannot be read.
    """
    tls_context(config.mqtt)
    if config.mqtt.cert:
        read_validity(Path(config.mqtt.cert))
    read_password(config.mqtt)
    Principals(config.identity.principals)
    ContentFilter(config.content_filter)
    if config.content_filter.classifier:
        _check_program(config.content_filter.classifier[0])
    if config.engine.engine == "onnx":
        from edgebit.daemon.serving.onnx_opening import check_onnx

        check_onnx(config.engine, model)


def _check_program(name: str) -> None:
    """A classifier runs in /, so that is where a name with a / in it counts from."""
    if shutil.which(str(Path("/", name)) if "/" in name else name) is None:
        raise ConfigError(f"[content_filter]: classifier {name!r} is no program that can be run: name one by its path")
