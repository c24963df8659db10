"""Run where Home Assistant's own modules can be imported: judges /host/document.json by them, and prints what it found.

Stand-ins take the place of packages that Home Assistant imports and that are not here (native ones, mostly): nothing
that is used below does more than import them. orjson is stood in for by the standard library's json.
"""

import asyncio
import importlib
import json
import sys
import threading
import types
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path

sys.path[:0] = [str(path) for path in Path("/host").glob("*.whl")]


class StandIn(types.ModuleType):
    """A module that has every name, each a class of its own."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        kinds = (Exception,) if name.endswith(("Error", "Exception")) else ()
        made = type(name, kinds, {"__class_getitem__": classmethod(lambda cls, item: cls)})
        setattr(self, name, made)
        return made


class StandIns(MetaPathFinder, Loader):
    """Finds what is nowhere else; of a package that is there, it makes up no part."""

    nothing = StandIn("nothing")

    def find_spec(self, name, path, target=None):
        top = name.partition(".")[0]
        real = top in sys.stdlib_module_names or not isinstance(sys.modules.get(top, self.nothing), StandIn)
        return None if real else ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return StandIn(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.append(StandIns())
orjson = StandIn("orjson")
orjson.loads, orjson.JSONDecodeError = json.loads, json.JSONDecodeError
orjson.dumps = lambda value, *arguments, **named: json.dumps(value).encode()
for flag in (
    "NON_STR_KEYS",
    "PASSTHROUGH_DATACLASS",
    "PASSTHROUGH_DATETIME",
    "SORT_KEYS",
    "INDENT_2",
    "APPEND_NEWLINE",
):
    setattr(orjson, f"OPT_{flag}", 0)
lru = StandIn("lru")
lru.LRU = type("LRU", (dict,), {"__init__": lambda self, size: None})
sys.modules |= {"orjson": orjson, "lru": lru}

from homeassistant.components.mqtt import discovery  # noqa: E402
from homeassistant.const import __version__  # noqa: E402
from homeassistant.core import HomeAssistant  # noqa: E402
from homeassistant.helpers.template import Template  # noqa: E402

asyncio.get_running_loop()._thread_id = threading.get_ident()  # Home Assistant reads it of a loop of CPython's own
hass = HomeAssistant("/tmp")
found = {"version": __version__, "components": [], "rendered": {}}

payload = discovery._parse_device_payload(hass, Path("/host/document.json").read_text(), "edgebit_pi", None)
for name, part in payload.get("components", {}).items():
    component = discovery.MQTTDiscoveryPayload(part)
    platform = importlib.import_module(f"homeassistant.components.mqtt.{component.pop('platform')}")
    component["device"], component["origin"] = payload["device"], payload["origin"]
    discovery._merge_common_device_options(component, payload)
    platform.PLATFORM_SCHEMA_MODERN(dict(component))  # the strict one: an unknown key is refused
    platform.DISCOVERY_SCHEMA(dict(component))
    found["components"].append(name)

for name, (template, message) in json.loads(Path("/host/templates.json").read_text()).items():
    of = Template(template, hass)
    if isinstance(message, dict):
        found["rendered"][name] = of.async_render(message, parse_result=False)
    else:
        found["rendered"][name] = of.async_render_with_possible_json_value(message)
print(json.dumps(found))
