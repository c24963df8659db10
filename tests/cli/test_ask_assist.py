"""`edgebit ask --assist`, `--adapter`, `--schema` and `edgebit adapter load|unload|list`, against a daemon."""

import json

import pytest

from edgebit.cli import main
from edgebit.cli.response_format import response_format_of

CALL = '{"intent":"turn_on","name":"lamp","say":"Lamp on."}'


@pytest.fixture
def edgebit(broker, capsys):
    """Runs a command at the test's broker, as alice; gives exit code, output and errors."""

    def run(*arguments):
        code = 0
        try:
            main([*arguments, "--principal", "alice", "--broker", broker.url])
        except SystemExit as ended:
            code = ended.code
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_assist_and_adapters(ready, edgebit, tmp_path):
    """What is said, and the call; adapters by name, and each command's own words when it is too late."""
    ready(toml='[adapters]\nmay_load = ["alice"]\n')
    said = edgebit("ask", "--device", "pi", "--assist", f"json {CALL}")
    assert said == (0, 'Lamp on.\n{"intent": "turn_on", "name": "lamp"}\n', "")
    reply = json.loads(edgebit("ask", "--device", "pi", "--assist", "--json", f"json {CALL}")[1])
    assert (reply["text"], reply["speaker"]) == ("Lamp on.", "model")

    file = tmp_path / "garage.adapter"
    file.write_bytes(b"adapter of fake\n" + bytes(100_000))
    device = ("--device", "pi")
    assert "has no adapters" in edgebit("adapter", "list", *device)[1]
    code, loaded, _ = edgebit("adapter", "load", str(file), "--name", "garage", *device)
    assert code == 0 and "answers with adapter garage" in loaded
    assert "already" in edgebit("adapter", "load", str(file), "--name", "garage", *device)[1]
    (about,) = json.loads(edgebit("adapter", "list", "--json", *device)[1])
    assert (about["name"], about["bytes"], about["loaded"]) == ("garage", 100_016, True)
    assert edgebit("ask", *device, "--adapter", "garage", "say 1")[1] == "w0 \n"
    code, _, unknown = edgebit("ask", *device, "--adapter", "lamp", "say 1")
    assert code == 11 and "'garage'" in unknown
    assert edgebit("adapter", "unload", "garage", *device)[0] == 0
    code, _, gone = edgebit("adapter", "unload", "garage", *device)
    assert code == 11 and "has no adapter garage" in gone


def test_no_adapter_file_and_questions_that_do_not_fit(edgebit, tmp_path):
    """Refused before anything is sent."""
    (tmp_path / "x").write_text("x")
    code, _, bad = edgebit("adapter", "load", str(tmp_path / "x"), "--device", "pi")
    assert code == 3 and "is no adapter file" in bad
    code, _, wrong = edgebit("ask", "--device", "pi", "--assist", "--system", "be brief", "hi")
    assert code == 2 and "--assist goes without" in wrong


def test_schemas_on_the_command_line(tmp_path):
    """Two words, or a file that holds an object."""
    (tmp_path / "lamp.json").write_text('{"type": "object"}')
    assert response_format_of("json") == {"type": "json_object"}
    assert response_format_of("model") == {"type": "model_schema"}
    given = response_format_of(str(tmp_path / "lamp.json"))
    assert given == {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}
    for content, why in (("[1]", "it is no object"), ("{", "is no JSON"), ("", "is empty"), ('{"a":1,"a":1}', "twice")):
        (tmp_path / "lamp.json").write_text(content)
        with pytest.raises(Exception, match=why):
            response_format_of(str(tmp_path / "lamp.json"))
    with pytest.raises(Exception, match="cannot be read"):
        response_format_of(str(tmp_path / "none"))
