"""`edgebit metrics` and `edgebitd metrics`: the same rows from a device and its folder, read by other parsers."""

import csv
import io
import json

import pytest
from click.testing import CliRunner
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

from edgebit.cli import cli
from edgebit.daemon import __main__ as daemon
from edgebit.daemon.monitoring.console import read_folder
from edgebit.daemon.monitoring.export import FORMATS, Table
from edgebit.daemon.monitoring.history import History, Record, read_records
from edgebit.daemon.monitoring.history_request import HistoryRequest, answer
from edgebit.daemon.monitoring.quantities import NAMES
from edgebit.daemon.monitoring.summary import summary_of
from edgebit.daemon.monitoring.timeline import Moment, present
from edgebit.errors import ConfigError, DeviceError, EdgebitError, NoAnswerError
from edgebit.metrics import ask_table, hear_now

COUNT = 400


@pytest.fixture
def root(tmp_path):
    """A device folder with a history that ends now, a record each 30 s; the one before the last knows no heat."""
    now = present()
    history = History(tmp_path / "state" / "history", NAMES, records=COUNT, max_bytes=10**7, batch=COUNT)
    for number in range(COUNT):
        age_s = 30.0 * (COUNT - 1 - number)
        known = None if number == COUNT - 2 else 40.0 + number % 7
        values = {name: float(number) for name in NAMES} | {"answered": 2.0, "t_soc": known}
        history.add(Record(Moment(now.boot, now.monotonic - age_s, now.wall - age_s), values))
    history.flush()
    return tmp_path


class Device:
    """A device that answers as a daemon over its folder does, in pages."""

    def __init__(self, root, packet_max=16384):
        self.root, self.packet_max, self.pages = root, packet_max, 0
        self.now = present()

    def ask(self, device, op, fields, *, timeout_s):
        assert op == "history"
        self.pages += 1
        request = HistoryRequest.read(fields)
        folder = self.root / "state" / "history"
        body = answer(lambda: read_records(folder), request, self.now, interval_s=30.0, packet_max=self.packet_max)
        return json.loads(json.dumps(body))


@pytest.mark.parametrize("step_s", [0, 60])
def test_a_device_and_its_folder_give_the_same_rows(root, step_s):
    """Over MQTT in pages, from the disk at once; the columns stand in the same order."""
    asked = {"since_s": 86400, "step_s": step_s}
    device = Device(root)
    rows = ask_table(device, "pi", asked)
    local = read_folder(root / "state" / "history", asked, here=True, device="pi")
    assert rows.whole and device.pages > 2
    assert list(rows.table.columns) == list(local.columns)
    for one, other in zip(rows.table.rows, local.rows, strict=True):
        assert one[1:] == other[1:] and abs(one[0] - other[0]) < 5.0  # the clock was read twice


def test_rows_of_another_step_are_refused():
    """A summary of means would be none of what was recorded."""

    class Other:
        def ask(self, device, op, fields, *, timeout_s):
            return {"columns": ["t", "n"], "rows": [[1, 1]], "now": 2.0, "step_s": 60, "next": None}

    with pytest.raises(DeviceError, match="rows of 60 s instead of 0 s"):
        ask_table(Other(), "pi", {"since_s": 3600, "step_s": 0})


def some(root):
    return read_folder(root / "state" / "history", {"step_s": 0, "fields": ["answered", "t_soc"]}, here=False)


def test_csv(root):
    """As Python's reader has it; what is not known is empty."""
    table = some(root)
    head, *lines = csv.reader(io.StringIO(FORMATS["csv"](table)))
    assert head == ["t", "n", "answered", "t_soc"]
    assert [[float(cell) if cell else None for cell in line] for line in lines] == [list(row) for row in table.rows]
    assert lines[-2][3] == "" and lines[-1][2] == "2"


def test_json(root):
    """Rows as lists, in the order of the columns."""
    table = some(root)
    body = json.loads(FORMATS["json"](table))
    assert body["columns"] == ["t", "n", "answered", "t_soc"] and body["step_s"] == 0
    assert body["rows"] == [list(row) for row in table.rows] and body["rows"][-2][3] is None


def test_openmetrics(root):
    """By Prometheus' strict parser: counts are summed up, times rise, the device is a label."""
    table = some(root)
    named = Table(columns=table.columns, rows=table.rows, step_s=0, device="pi")
    families = {
        family.name: family for family in openmetrics.text_string_to_metric_families(FORMATS["prometheus"](named))
    }
    jobs = families["edgebit_jobs"].samples
    assert [sample.value for sample in jobs] == [2.0 * number for number in range(1, len(table.rows) + 1)]
    assert {tuple(sample.labels.items()) for sample in jobs} == {(("outcome", "answered"), ("device", "pi"))}
    assert [float(sample.timestamp) for sample in jobs] == pytest.approx([row[0] for row in table.rows])
    assert len(families["edgebit_temperature_celsius"].samples) == len(table.rows) - 1


def test_a_summary():
    """A level has its mean and ends, a count its sum; a figure that was never known has no line."""
    rows = [[0, 1, 3, float(n), None] for n in range(1, 101)]
    found = summary_of(Table(columns=["t", "n", "answered", "t_soc", "power_w"], rows=rows, step_s=0))
    figures = found.to_json()["figures"]
    assert figures == {
        "answered": {"unit": "1", "known": 100, "total": 300},
        "t_soc": {"unit": "C", "known": 100, "mean": 50.5, "least": 1, "p95": 95, "greatest": 100},
    }


def on_the_device(capsys, *arguments):
    code = daemon.main(["metrics", *map(str, arguments)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_on_the_device(root, capsys):
    """Without a broker, from ROOT/state/history."""
    code, out, _ = on_the_device(capsys, "export", "--root", root, "--since-s", 300, "--step-s", 0)
    lines = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and len(lines) == 10 and lines[-1]["tok_s"] == str(COUNT - 1)
    _, out, _ = on_the_device(capsys, "summary", "--root", root, "--json")
    assert json.loads(out)["figures"]["answered"]["total"] == 240
    _, out, _ = on_the_device(capsys, "show", "--root", root)
    assert ["tok_s", str(COUNT - 1), "tok/s"] in [line.split() for line in out.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["export", "--root", "nowhere"], NoAnswerError.exit_code, "holds nothing of that time"),
        (["summary", "--root", "nowhere", "--csv"], ConfigError.exit_code, "metrics export --csv"),
        (["export", "--root", "nowhere", "--step-s", "0.5"], ConfigError.exit_code, "step_s must be 0"),
        (["export", "--root", "nowhere", "--since-s", "-1"], ConfigError.exit_code, "a number from 0 to 31622400"),
    ],
)
def test_what_the_device_cannot_print(arguments, code, said, capsys, tmp_path, monkeypatch):
    """In words, with an exit code."""
    monkeypatch.chdir(tmp_path)
    got, out, error = on_the_device(capsys, *arguments)
    assert (got, out) == (code, "") and said in error


def call(*arguments):
    return CliRunner().invoke(cli, ["metrics", *map(str, arguments)])


def test_from_a_folder(root, tmp_path):
    """A copy of a device's history, read without a broker."""
    folder, out = root / "state" / "history", tmp_path / "out.csv"
    done = call("export", "--from", folder, "--fields", "answered, t_soc", "--since", "10m", "--out", out)
    assert done.exit_code == 0, done.output
    head, *lines = csv.reader(out.open())
    assert head == ["t", "n", "answered", "t_soc", "t_soc_min", "t_soc_max"] and len(lines) in (10, 11)
    text = call("summary", "--from", folder, "--since", "2h").output
    assert any(line.split()[:2] == ["t_soc", "C"] for line in text.splitlines())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "one of --device NAME and --from FOLDER"),
        (["--device", "pi", "--from", "."], "one of --device NAME and --from FOLDER"),
        (["--device", "Pi 5"], "pi-5"),
        (["--device", "pi", "--since", "soon"], "is no time"),
        (["--from", ".", "--raw", "--step", "1m"], "--raw goes without --step"),
        (["--from", ".", "--csv", "--json"], "--csv and --json are two formats"),
        (["--from", ".", "--prometheus", "--csv"], "are two formats"),
    ],
)
def test_what_is_refused(arguments, said):
    """Before anything is asked."""
    done = call("export", *arguments)
    assert done.exit_code == 2 and said in done.output


def test_a_figure_that_there_is_not(root):
    """The names that there are stand in the refusal."""
    done = call("export", "--from", root / "state" / "history", "--fields", "heat")
    assert isinstance(done.exception, EdgebitError) and "t_soc" in str(done.exception)


class Talker:
    """A connection on which a device says `payloads`, the retained ones first."""

    def __init__(self, *payloads, **retained):
        self.said = [*retained.items(), *(("metrics", payload) for payload in payloads)]

    def watch(self, names, kinds, told):
        assert tuple(names) == ("pi",) or not self.said
        self.told = told

    def wait(self, seconds):
        for kind, payload in self.said:
            self.told("pi", kind, payload if isinstance(payload, bytes) else json.dumps(payload).encode(), False)
        self.said = []


ONLINE = {"state": "online", "conn": 1}


def test_figures_of_now_whatever_is_published():
    """What is no object is passed over, a figure of a wrong type is none, and names stay in their labels."""
    body = {"t_soc": 48.2, "tok_s": "fast", "power_w": True, "energy_j": 10**400, "uptime_s": None, "alerts": 7,
            "counters": {'a"\n': 1}, "sensors": {"x": 3}}  # fmt: skip
    info = {"edgebit": ["0"], "model": {"name": "a\x1b\nb"}}
    now = hear_now(Talker(b"\xff", b"[1]", body, b"[", availability=ONLINE, info=info), "pi", 5.0)
    found = [s for family in parser.text_string_to_metric_families(now.prometheus()) for s in family.samples]
    values = {sample.name: sample.value for sample in found}
    assert values["edgebit_temperature_celsius"] == 48.2
    assert not {"edgebit_decode_tokens_per_second", "edgebit_power_watts", "edgebit_energy_joules_total"} & set(values)
    assert next(s.labels for s in found if s.name == "edgebit_info")["model"] == "a\\x1b\\x0ab"


@pytest.mark.parametrize(
    ("talker", "name", "said"),
    [
        (Talker(availability={"state": "lost"}), "pi", "pi is lost"),
        (Talker(availability={"state": ["x"]}), "pi", "pi is not online"),
        (Talker(), "pj", "knows no device 'pj'. It knows no device at all"),
        (Talker(b"no", availability=ONLINE), "pi", "told no figures within"),
    ],
)
def test_a_device_that_says_nothing(talker, name, said, monkeypatch):
    """Why, and what to do."""
    monkeypatch.setattr("edgebit.metrics.RETAINED_WAIT_S", 0.05)
    with pytest.raises(NoAnswerError, match=said):
        hear_now(talker, name, 0.2)
