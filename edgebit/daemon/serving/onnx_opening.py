"""Opens ONNX Runtime in the place of our own engine, once it is sure that both compute the same model.

edgebit.onnx_engine is imported here when it is asked for, and nowhere else in the daemon; it needs onnxruntime, numpy.
The bundle stays what it is: its library tokenizes and draws, its model file has the tokenizer, the template and the
golden probes, which are the proof.
"""

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebit.bundle.archive import Member, hash_file, locate_model, looks_like_bundle, open_bundle
from edgebit.bundle.manifest import MODEL_MEMBER
from edgebit.bundle.model_reader import ModelFile
from edgebit.bundle.source_sums import source_sums
from edgebit.daemon.config.foreign_engine import LEFT_OUT
from edgebit.daemon.config.sections import EngineConfig
from edgebit.daemon.serving.greedy_probes import GreedyProbes
from edgebit.daemon.serving.session_opening import Opened, context_len, sequences
from edgebit.errors import OnnxError
from edgebit.runtime.cores import default_threads
from edgebit.runtime.model import Model
from edgebit.runtime.session import Session

if TYPE_CHECKING:
    from edgebit.onnx_engine.folder import OnnxFolder
    from edgebit.onnx_engine.session import OnnxSession

log = logging.getLogger("edgebit.onnx")


def open_onnx(model: Model, place: Member, sha256: str | None, config: EngineConfig) -> Opened:
    """Over ONNX Runtime and the configured folder. `place`: the model's file; sha256: its sum, from a manifest.

    Raises OnnxError where onnxruntime is missing or too old, the folder is damaged or another model's, or memory short;
    BundleError where what it computes is not what the model's golden probes say.
    """
    from edgebit.onnx_engine.folder import OnnxFolder
    from edgebit.onnx_engine.session import OnnxSession
    from edgebit.onnx_engine.token_engine import KV, OnnxEngine

    folder = OnnxFolder.open(Path(config.onnx_folder))
    _check_same_model(folder, model.meta(), place, sha256)
    with ModelFile(place.path, place.offset, place.size) as file:
        _check_probes_fit(folder, file, place)
    threads = config.threads or default_threads()
    runtime = OnnxSession.open(folder, threads=threads)
    name = f"ONNX Runtime {runtime.version} with {folder.path}"
    probes = GreedyProbes(model.library, place, name, lambda context: OnnxEngine(runtime, model, ctx_len=context))
    session = Session(
        model,
        ctx_len=config.ctx_len or min(context_len(model.info, config), folder.conf.context_max),
        threads=threads,
        sequences=sequences(model.info, config, KV),
        kv=KV,
        speculate=0,
        batch_len=config.batch_len,
        open_engine=functools.partial(OnnxEngine, runtime),
    )
    try:
        passed = probes.check()
    except BaseException:
        session.close()
        raise
    _tell(runtime, name, passed)
    return Opened(session, probes, about_onnx(runtime))


def check_onnx(config: EngineConfig, path: Path | None) -> None:
    """Look for what open_onnx() would refuse, as far as it shows without the graph being loaded.

    path: the bundle or model file, where it is known
    Raises OnnxError; BundleError where the model file cannot be read.
    """
    from edgebit.onnx_engine.folder import OnnxFolder
    from edgebit.onnx_engine.session import import_onnxruntime, usable_operators

    folder = OnnxFolder.open(Path(config.onnx_folder))
    usable_operators(folder, import_onnxruntime().__version__)
    if config.ctx_len > folder.conf.context_max:
        raise OnnxError(
            f"ctx_len = {config.ctx_len} in [engine]: the model of {folder.path} has a context of"
            f" {folder.conf.context_max} tokens. Take the line out, or ask for no more"
        )
    if path is None:
        return
    bundle = open_bundle(path) if looks_like_bundle(path) else None
    place = locate_model(path)
    with ModelFile(place.path, place.offset, place.size) as file:
        meta = file.meta
        _check_probes_fit(folder, file, place)
    sha256 = bundle.manifest.files[MODEL_MEMBER].sha256 if bundle is not None else None
    _check_same_model(folder, meta, place, sha256)


def about_onnx(runtime: "OnnxSession") -> dict[str, Any]:
    """What the info document says of the engine, beside what it says of any."""
    folder = runtime.folder
    return {
        "name": "onnx",
        "onnxruntime": runtime.version,
        "kernel": runtime.binding.state,
        "graph": {
            "source": folder.source,
            "source_sha256": folder.source_sums(),
            "ops": folder.ops,
            "fallback": folder.fallback,
        },
    }


def _tell(runtime: "OnnxSession", name: str, passed: int) -> None:
    log.info("%s answers: %s", name, LEFT_OUT)
    if runtime.binding.note:
        log.warning("%s", runtime.binding.note)
    if passed:
        log.info("it passes all %d golden probes", passed)
    else:
        log.warning("the model file has no golden probes: nothing shows that its answers are the model's")


def _check_probes_fit(folder: "OnnxFolder", file: ModelFile, place: Member) -> None:
    """Raise OnnxError where the graph's context is too short for what must show that it computes right."""
    need, most = file.probe_context, folder.conf.context_max
    if need > most:
        raise OnnxError(
            f"{folder.path} was exported with a context of {most} tokens, and the model's golden probes"
            f" ({place.path}) need {need}, without which nothing shows that its answers are the model's."
            f" Export the folder again with a longer --ctx, {need} or more"
        )


def _check_same_model(folder: "OnnxFolder", meta: Mapping[str, Any], place: Member, sha256: str | None) -> None:
    """Raise OnnxError where the folder was made of other weights: neither of the model file nor of what that is of."""
    theirs = set(folder.source_sums().values())
    ours = set(source_sums(meta).values())
    if ours and ours <= theirs:
        return
    if sha256 is None and place.offset == 0:
        sha256 = hash_file(place.path).sha256
    if sha256 in theirs:
        return
    raise OnnxError(
        f"{folder.path} was made of another model ({folder.source}) than {place.path}"
        f" ({meta.get('name', 'without a name')}): the sums of their sources differ."
        " Export the folder again from what the bundle was built from, or deploy the bundle of that model"
    )
