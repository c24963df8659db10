"""Home Assistant's own validators and template engine on what it is told.

Home Assistant needs a newer Python than this project: its wheel runs in Pyodide (CPython 3.14 as WebAssembly, by node).
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from edgebit.daemon.contract.topics import DeviceTopics
from edgebit.daemon.home_assistant.discovery import FLAGS, SENSORS, DeviceFacts, discovery_document

HERE = Path(__file__).parent
PYODIDE = "pyodide@314.0.7"
HOME_ASSISTANT = "homeassistant==2026.2.3"
# Of what Home Assistant imports, that part which its MQTT schemas use, and what falls back to plain Python.
PACKAGES = (
    "voluptuous==0.15.2", "voluptuous-serialize==2.7.0", "voluptuous-openapi==0.2.0", "python-slugify==8.0.4",
    "text-unidecode==1.3", "awesomeversion==25.8.0", "attrs==25.4.0", "cronsim==2.7", "typing-extensions==4.15.0",
    "jinja2==3.1.6", "markupsafe==3.0.3", "astral==2.2", "async-interrupt==1.2.2", "packaging==25.0",
    "propcache==0.4.1", "yarl==1.22.0", "multidict==6.7.0", "pyyaml==6.0.3", "ulid-transform==1.5.2", "aiohttp==3.13.3",
    "certifi==2025.11.12", "frozenlist==1.8.0", "aiosignal==1.4.0", "idna==3.11",
    "aiohappyeyeballs==2.6.1", "annotatedyaml==1.0.2",
)  # fmt: skip
FOR_ITS_PYTHON = ("--python-version", "3.14", "--only-binary", ":all:", "--platform", "manylinux_2_28_x86_64",
                  "--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_24_x86_64")  # fmt: skip


@pytest.fixture
def home_assistant(require_tool, npm_package, pypi_wheel, tmp_path):
    """Gives a function: a document and templates with what they are rendered with, to Home Assistant's findings."""
    node = require_tool("node")
    pyodide = npm_package(PYODIDE)
    for name in (HOME_ASSISTANT, *PACKAGES):
        shutil.copy(pypi_wheel(name, *FOR_ITS_PYTHON), tmp_path)

    def judge(document, templates):
        (tmp_path / "document.json").write_text(json.dumps(document))
        (tmp_path / "templates.json").write_text(json.dumps(templates))
        command = [node, str(HERE / "pyodide.mjs"), str(pyodide), str(HERE / "inside_home_assistant.py"), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return judge


@pytest.mark.slow
def test_home_assistant_takes_it(home_assistant):
    """Every component passes the strict schema of its platform, and a document with a wrong unit does not."""
    facts = DeviceFacts(
        topics=DeviceTopics("edgebit", "pi"), principal="homeassistant", version="1.0", machine="Raspberry Pi 5",
        model="tiny", assists=True, sensors=frozenset(SENSORS) | frozenset(FLAGS), interval_s=30.0,
    )  # fmt: skip
    document = discovery_document(facts)
    parts = document["components"]
    said = 'She said "no" <b> it\'s\n\U0001d11e'
    call = {"intent": "set_brightness", "name": "lamp", "percent": 40}
    reply = {"id": "answer", "text": "é" * 300, "call": call, "energy": {"joules": 3.5}}
    metrics = {"sensors": {"power": {"absent": "asleep"}, "throttled": {"value": 1}, "energy_total": {"value": 5400}}}
    templates = {
        "ask": (parts["ask"]["command_template"], {"value": said}),
        "answer": (parts["answer"]["value_template"], json.dumps(reply)),
        "attributes": (parts["answer"]["json_attributes_template"], json.dumps(reply)),
        "refused": (parts["answer"]["value_template"], '{"error": {"message": "busy"}}'),
        "power": (parts["power"]["value_template"], json.dumps(metrics)),
        "throttled": (parts["throttled"]["value_template"], json.dumps(metrics)),
        "energy": (parts["energy_total"]["value_template"], json.dumps(metrics)),
        "latency": (parts["latency_p95_ms"]["value_template"], '{"latency_p95_ms": 3250.0}'),
        "alert": (
            parts["alert"]["json_attributes_template"],
            '{"alerts": [{"message": "hot", "severity": "critical"}]}',
        ),
        "lost": (document["availability"][0]["value_template"], '{"state": "lost", "conn": 2}'),
    }
    found = home_assistant(document, templates)
    assert HOME_ASSISTANT.endswith(found["version"])
    assert found["components"] == list(parts)
    rendered = found["rendered"]
    assert json.loads(rendered["ask"])["prompt"] == said
    assert rendered["answer"] == "é" * 255 and json.loads(rendered["attributes"])["text"] == reply["text"]
    assert json.loads(rendered["attributes"])["call"] == call
    assert json.loads(rendered["alert"]) == {"messages": ["hot"], "severity": "critical"}
    assert {name: rendered[name] for name in ("refused", "power", "throttled", "energy", "latency", "lost")} == {
        "refused": "busy", "power": "None", "throttled": "ON", "energy": "1.5", "latency": "3.25", "lost": "offline",
    }  # fmt: skip

    parts["power"]["unit_of_measurement"] = "J"
    with pytest.raises(AssertionError, match="not valid together with device class"):
        home_assistant(document, {})
    del document["origin"]
    assert home_assistant(document, {})["components"] == []
