"""The import table of docs/architecture.md: each layer is imported alone, and what came with it is read off."""

import pkgutil
import subprocess
import sys

import pytest

import edgebit

# A part of edgebit: the parts it may import (besides itself, errors, resources and the package's version).
MAY_IMPORT = {
    "edgebit.checkpoint": {"edgebit.progress", "edgebit.bundle", "edgebit.ternary"},
    "edgebit.ternary": set(),
    "edgebit.bundle": {"edgebit.ternary"},
    "edgebit.targets": set(),
    "edgebit.roofline": {"edgebit.targets"},
    "edgebit.footprint": {
        "edgebit.roofline",
        "edgebit.targets",
        "edgebit.bundle.model_format",
        "edgebit.bundle.tensor_plan",
        "edgebit.runtime.defaults",
    },
    "edgebit.transport": set(),
    "edgebit.onnx_engine": {"edgebit.bundle", "edgebit.elf", "edgebit.runtime"},
    "edgebit.runtime": {"edgebit.bundle"},
    "edgebit.daemon": {"edgebit.runtime", "edgebit.bundle"},
    "edgebit.artifacts": {"edgebit.targets", "edgebit.elf", "edgebit.bionic", "edgebit.checks"},
    "edgebit.instructions": {"edgebit.targets", "edgebit.checks"},
    "edgebit.checks": set(),
    "edgebit.progress": set(),
    "edgebit.bionic": {"edgebit.elf"},
    "edgebit.kernel_program": {"edgebit.elf"},
    "edgebit.elf": set(),
}  # fmt: skip
CORE = {"edgebit.checkpoint", "edgebit.ternary", "edgebit.bundle", "edgebit.targets", "edgebit.roofline",
        "edgebit.footprint", "edgebit.artifacts", "edgebit.instructions", "edgebit.checks", "edgebit.bionic",
        "edgebit.elf", "edgebit.kernel_program", "edgebit.progress", "edgebit.transport", "edgebit.runtime",
        "edgebit.onnx_engine"}  # fmt: skip
# A service: the other services it uses.
SERVICES = {
    "edgebit.adapters": {"edgebit.convert", "edgebit.native_model"},
    "edgebit.asked_process": set(),
    "edgebit.bench": {"edgebit.asked_process", "edgebit.convert", "edgebit.line_plot", "edgebit.synthesize"},
    "edgebit.build": {"edgebit.convert", "edgebit.cross", "edgebit.keys", "edgebit.probe_runs", "edgebit.pyz"},
    "edgebit.compare": {"edgebit.asked_process", "edgebit.convert", "edgebit.engines", "edgebit.export",
                        "edgebit.line_plot", "edgebit.native_model", "edgebit.synthesize"},
    "edgebit.convert": set(),
    "edgebit.cross": set(),
    "edgebit.demo": {"edgebit.build", "edgebit.convert", "edgebit.cross", "edgebit.deploy", "edgebit.device_probe",
                     "edgebit.keys", "edgebit.local_broker", "edgebit.probe_runs", "edgebit.pyz"},
    "edgebit.deploy": {"edgebit.device_probe"},
    "edgebit.device_probe": set(),
    "edgebit.doctor": {"edgebit.convert", "edgebit.cross", "edgebit.daemon", "edgebit.deploy",
                       "edgebit.device_probe", "edgebit.keys", "edgebit.model_checks", "edgebit.model_diff",
                       "edgebit.probe_runs", "edgebit.verify"},
    "edgebit.engines": set(),
    "edgebit.evaluate": {"edgebit.engines"},
    "edgebit.export": set(),
    "edgebit.fleet": {"edgebit.daemon", "edgebit.deploy", "edgebit.device_probe", "edgebit.mqtt_client"},
    "edgebit.keys": set(),
    "edgebit.line_plot": set(),
    "edgebit.local_broker": set(),
    "edgebit.monitor": {"edgebit.daemon", "edgebit.line_plot", "edgebit.mqtt_client"},
    "edgebit.merge": {"edgebit.export"},
    "edgebit.metrics": {"edgebit.daemon", "edgebit.line_plot", "edgebit.monitor", "edgebit.mqtt_client"},
    "edgebit.model_checks": {"edgebit.model_diff"},
    "edgebit.model_diff": set(),
    "edgebit.native_model": {"edgebit.convert"},
    "edgebit.plan": {"edgebit.synthesize"},
    "edgebit.probe_runs": {"edgebit.convert"},
    "edgebit.pyz": set(),
    "edgebit.simulate": {"edgebit.daemon", "edgebit.line_plot", "edgebit.plan", "edgebit.synthesize"},
    "edgebit.synthesize": set(),
    "edgebit.train": {"edgebit.export", "edgebit.line_plot"},
    "edgebit.verify": {"edgebit.convert", "edgebit.cross", "edgebit.keys", "edgebit.model_checks", "edgebit.model_diff",
                       "edgebit.probe_runs"},
    "edgebit.mqtt_client": {"edgebit.daemon"},  # speaks the daemon's own protocol: topics, frames, messages
}  # fmt: skip
MAY_IMPORT |= {service: CORE | others for service, others in SERVICES.items()}
ALWAYS = {"edgebit", "edgebit.errors", "edgebit.resources"}
# What a device does not have: nothing of this may come with the parts that run there.
NOT_ON_A_DEVICE = {"numpy", "click", "rich", "jinja2", "torch", "onnx", "onnxruntime", "tokenizers", "safetensors"}
ON_A_DEVICE = ["edgebit.errors", "edgebit.runtime", "edgebit.daemon", "edgebit.bundle.archive", "edgebit.bundle.slots",
               "edgebit.bundle.model_reader", "edgebit.bundle.prompt_program",
               "edgebit.deploy.local_install"]  # fmt: skip

_IMPORT_ALL = """
import importlib, pkgutil, sys
name = sys.argv[1]
module = importlib.import_module(name)
for part in pkgutil.walk_packages(getattr(module, "__path__", []), name + "."):
    if part.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(part.name)
    except ModuleNotFoundError as error:
        if error.name != "torch":  # an extra: its modules are looked at where it is installed
            raise
print("\\n".join(sys.modules))
"""


def modules_after_importing(name: str) -> set[str]:
    """Every module that a fresh interpreter has loaded after importing `name` and all inside it."""
    done = subprocess.run([sys.executable, "-c", _IMPORT_ALL, name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def is_part(module: str, parts: set[str]) -> bool:
    return any(module == part or module.startswith(part + ".") for part in parts)


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_a_layer_imports_only_what_lies_below_it(layer):
    """Imports go one way: cli, services, core, errors."""
    ours = {module for module in modules_after_importing(layer) if module.split(".")[0] == "edgebit"}
    allowed = MAY_IMPORT[layer] | {layer}
    parents = {part.rpartition(".")[0] for part in allowed}
    surplus = {module for module in ours - ALWAYS - parents if not is_part(module, allowed)}
    assert not surplus


def test_every_module_has_its_rule():
    """A new file at the top finds its layer here first; what is there for all of them, and the programs, aside."""
    names = {f"edgebit.{part.name}" for part in pkgutil.iter_modules(edgebit.__path__)}
    assert names - ALWAYS - {"edgebit.__main__", "edgebit.cli", "edgebit.assistant_model"} == set(MAY_IMPORT)


@pytest.mark.parametrize("part", ON_A_DEVICE)
def test_what_runs_on_a_device_needs_nothing_it_does_not_have(part):
    """The standard library, paho-mqtt and pyserial are all there is."""
    roots = {module.split(".")[0] for module in modules_after_importing(part)}
    assert not roots & NOT_ON_A_DEVICE


def test_reading_training_data_needs_no_packages_of_training():
    """`edgebit train --dry-run` works without edgebit[train]."""
    roots = {module.split(".")[0] for module in modules_after_importing("edgebit.train.data")}
    assert not roots & {"torch", "safetensors", "tokenizers", "transformers"}
