"""edgebitd.toml: what is taken, and the words of each refusal."""

import re
import tomllib

import pytest
from mqtt_fixtures import ROOT

from edgebit.daemon.config.reader import config_from, host_and_port, open_secrets, read_config, read_password
from edgebit.daemon.config.sections import Config, EngineConfig
from edgebit.errors import ConfigError
from edgebit.runtime.defaults import DAEMON_MIB

REFUSED = [
    ("[mqt]\nurl = 'x'", "unknown section [mqt]; there are device, mqtt"),
    ("[mqtt]\nurls = 'x'", "[mqtt]: unknown key 'urls'; there are url, user"),
    ("mqtt = 3", "[mqtt] must be a section"),
    ("[mqtt]\nurl = 'mqtt://[x'", "url 'mqtt://[x': Invalid IPv6 URL"),
    ("[mqtt]\nurl = 3", "url must be a string, not 3"),
    ("[mqtt]\nkeepalive_s = true", "keepalive_s must be a whole number, not True"),
    ("[mqtt]\nkeepalive_s = 1.5", "keepalive_s must be a whole number, not 1.5"),
    ("[mqtt]\nkeepalive_s = 0", "keepalive_s is 0, it must lie between 1 and 3600"),
    ("[report]\ninterval_s = nan", "interval_s is nan"),
    ("[mqtt]\nurl = 'http://x'", "is not mqtt://HOST[:PORT]"),
    ("[mqtt]\nurl = 'mqtt://'", "is not mqtt://HOST[:PORT]"),
    ("[mqtt]\nurl = 'mqtt://h/path'", "is not mqtt://HOST[:PORT]"),
    ("[mqtt]\nurl = 'mqtt://h:99999'", "Port out of range"),
    ("[mqtt]\nurl = 'mqtt://u:p@h'", "a url holds no user or password"),
    ("[mqtt]\nprotocol = '3.1'", 'protocol is "auto", "5" or "3.1.1"'),
    ("[mqtt]\nauth = 'yes'", 'auth is "open", "topic", "broker-prop" or "signed"'),
    ("[mqtt]\nroot = 'a/+'", "root 'a/+' is not made of levels"),
    ("[mqtt]\ncert = '/c'\nurl = 'mqtts://h'", "cert and key go together"),
    ("[mqtt]\nca = '/c'", "ca and cert need an mqtts:// url"),
    ("[mqtt]\nca = 'no.pem'\nurl = 'mqtts://h'", "no.pem is not there or cannot be read"),
    ("[mqtt]\npassword_file = '/p'", "password_file needs a user"),
    ("[mqtt]\nuser = 'u'\npassword_file = 'none'", "none is not there or cannot be read"),
    ("[mqtt]\npassword = 'x'", "password: no secret stands in a configuration: see password_file"),
    ("[identity]\nsign_secret = 'x'", "sign_secret: no secret stands in a configuration"),
    ("[mqtt]\nuser = 'u'\npassword_file = 'credential:x'", "[mqtt]: 'credential:x': systemd gave no credentials"),
    ("[mqtt]\nuser = 'u'\npassword_file = 'credential:../x'", "names no credential: write credential:NAME"),
    ("[mqtt]\nauth = 'broker-prop'\nprotocol = '3.1.1'", 'auth = "broker-prop" needs MQTT 5'),
    ("[mqtt]\nauth = 'signed'", 'auth = "signed" needs principals'),
    ("[identity]\nprincipals = '/dev/null'", 'principals means nothing with auth = "open"'),
    ("[rate_limits]\ntokens = -1", "tokens is -1, it must lie between 0"),
    ("[content_filter]\nrules = 'none'", "none is not there or cannot be read"),
    ("[content_filter]\nclassifier_fault = 'x'", 'classifier_fault is "refuse" or "allow"'),
    ("[device]\nname = 'My Pi'", "(try 'my-pi')"),
    ("[defaults]\nmax_tokens = 5000", "max_tokens is above max_tokens of [limits]"),
    ("[defaults]\ntemperature = 'hot'", "temperature must be a number, not 'hot'"),
    ("[defaults]\ntop_p = 1.5", "top_p is 1.5, it must lie between"),
    ("[engine]\nspeculate = 65", "speculate is 65, it must lie between 0 and 64"),
    ("[engine]\nprefix_disk_mib = -1", "prefix_disk_mib is -1, it must lie between"),
    ("[engine]\nengine = 'llama'", '[engine]: engine is "native" or "onnx", not'),
    ("[engine]\nengine = 'onnx'", '[engine]: onnx_folder is needed with engine = "onnx"'),
    ("[engine]\nengine = 'onnx'\nonnx_folder = 'none'", "none is not there or cannot be read"),
    *(
        (f"[engine]\nengine = 'onnx'\nonnx_folder = '.'\n{line}", f"{line.partition(' ')[0]} = {words}")
        for line, words in (
            ("kv = 'int8'", "'int8' is not for engine = \"onnx\": its KV cache is f32"),
            ("isa = 'avx2'", "'avx2' is not for engine"),
            ("speculate = 8", '8 is not for engine = "onnx": it tries no drafts'),
            ("prefix_memory_mib = 64", '64 is not for engine = "onnx": it gives no states'),
            ("prefix_disk_mib = 64", "64 is not for engine"),
        )
    ),
    ("[governor]\nmode = 'on'", 'mode is "speed", "temperature" or "off", not'),
    ("[governor]\ntarget_c = 200.0", "target_c is 200.0, it must lie between 30 and 105"),
    ("[governor]\ntarget_c = 86.0", "stop_c must lie 5 or more above target_c"),
    ("[replies]\nallowed_prefixes = 'x'", "allowed_prefixes must be a list of strings"),
    ("[replies]\nallowed_prefixes = [1]", "allowed_prefixes must be a string, not 1"),
    ("[replies]\nallowed_prefixes = ['clients/']", "must hold {principal} and end with /"),
    ("[replies]\nallowed_prefixes = ['#{principal}/']", "without + #"),
    ("[engine]\nkv = 'q4'", '[engine]: kv is "f16", "int8" or "f32", not'),
    ("[device]\nname = '_pool'", "(try 'device')"),
    ("[pool]\nnames = ['Lab 1']", "(try 'lab-1')"),
    ("[pool]\nnames = ['a', 'a']", "a name stands twice"),
    ("[mqtt]\nauth = 'signed'\n[identity]\nprincipals = '/etc/hosts'\n[pool]\nnames = ['a']", "made for one device"),
    ("[pool]\nrejoin_queue = 4", "rejoin_queue must be below leave_queue"),
    ("[limits]\nqueue_max = 8\n[pool]\nnames = ['a']\nleave_queue = 9", "leave_queue is above queue_max"),
    ("[home_assistant]\nprefix = ''", "prefix '' is no topic"),
    ("[home_assistant]\nprefix = 'a/+'", "prefix 'a/+' is no topic"),
    ("[home_assistant]\nbirth_topic = '$SYS/x'", "birth_topic '$SYS/x' is no topic"),
    ("[home_assistant]\nprincipal = 'a/b'", "principal 'a/b' is not letters"),
    *(
        (
            f"[prometheus]\nlisten = '{listen}'",
            f"[prometheus]: listen '{listen}' is not HOST:PORT, such as 127.0.0.1:9464",
        )
        for listen in ("9464", ":9464", "localhost", "localhost:", "localhost:x", "localhost:70000", "h:²")
    ),
    ("[history]\nmax_bytes = 100000000", "max_bytes"),
    ("[wyoming]\nlisten = '10600'", "listen '10600' is not HOST:PORT"),
    ("[wyoming]\nlisten = '0.0.0.0:99999'", "listen '0.0.0.0:99999' is not HOST:PORT"),
    ("[wyoming]\nlisten = 'h:1'\nallow = ['10.0.0.1/8']", "10.0.0.1/8 has host bits set"),
    ("[wyoming]\nlisten = 'h:1'\nlanguages = []", "languages is empty"),
    ("[wyoming]\nlisten = 'h:1'\nmax_tokens = 5000", "max_tokens is above max_tokens of [limits]"),
    ("[power]\nsource = 'serial'", 'source "serial" needs a port'),
    ("[power]\ncalibration = [1, 2, 3, 4]", "name it with source"),
    ("[power]\nsource = 'pmic'\ncalibration = [1, 2, 3]", "calibration is two points in W"),
    ("[power]\nsource = 'pmic'\ncalibration = [1, 2, 1, 3]", "calibration is two points in W"),
    ("[power]\nsource = 'pmic'\ncalibration = [1, 2, nan, 4]", "calibration is two points in W"),
    ("[power]\ncalibration = 'x'", "calibration must be a list of numbers"),
    ("[power]\nmeter = 'fnb58'", 'meter is "line", "um24c", "um25c" or "um34c"'),
    ("[sensors]\ninterval_s = 0", "interval_s is 0.0, it must lie between 0.1 and 60"),
    ("[limits\n", "is not TOML"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_a_wrong_file_is_refused(tmp_path, text, words):
    """The message names the key and what would be right."""
    path = tmp_path / "edgebitd.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_config(path)
    assert words in str(refused.value) and str(path) in str(refused.value)


def test_what_asks_another_engine_for_nothing_is_taken():
    """The defaults, and what it does anyway; the folder may stay where our own engine computes again."""
    section = {"engine": "onnx", "onnx_folder": ".", "threads": 2, "ctx_len": 64, "sequences": 2, "batch_len": 16}
    for more in ({}, {"kv": "f32", "speculate": 0, "prefix_memory_mib": 0}, {"engine": "native", "kv": "int8"}):
        assert config_from({"engine": {**section, **more}}, "here", ROOT).engine.onnx_folder == str(ROOT)


def test_an_empty_file_is_enough():
    """Everything has a default; the device is called after its host."""
    config = config_from({}, "here", ROOT)
    assert config == Config()
    assert config.mqtt.host == "127.0.0.1" and config.mqtt.port == 1883 and not config.mqtt.tls
    assert re.fullmatch("[a-z0-9_.-]{1,64}", config.device_name)


def test_every_key_is_documented_with_its_default():
    """The example in docs/daemon.md is the whole file: same sections, same keys, same defaults."""
    block = re.search(r"```toml\n(.*?)```", (ROOT / "docs" / "daemon.md").read_text(), re.DOTALL).group(1)
    shown = tomllib.loads(re.sub(r"^# (?=[a-z_]+ = )", "", block, flags=re.MULTILINE))
    commented = set(re.findall(r"^# ([a-z_]+) = ", block, re.MULTILINE))
    for section, values in shown.items():
        part = getattr(Config(), section)
        assert list(values) == list(part.__slots__), section
        for key, value in values.items():
            default, said = getattr(part, key), tuple(value) if isinstance(value, list) else value
            assert default is None if key in commented else default == said, f"{section}.{key}"


def test_file_names_count_from_the_files_folder(tmp_path):
    """A folder that is copied as a whole keeps working."""
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "c.toml").write_text("[mqtt]\nuser = 'u'\npassword_file = 'password'\nurl = 'mqtts://h'\n")
    config = read_config(tmp_path / "c.toml")
    assert config.mqtt.password_file == str(tmp_path / "password")
    assert read_password(config.mqtt) == "secret"
    assert (config.mqtt.port, config.mqtt.tls) == (8883, True)


def test_a_secret_comes_from_systemd(tmp_path, monkeypatch):
    """By LoadCredential: only its first line counts, and the message of a fault does not hold it."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "mqtt.password").write_text("secret\nmore\n")
    (tmp_path / "c.toml").write_text("[mqtt]\nuser = 'u'\npassword_file = 'credential:mqtt.password'\n")
    assert read_password(read_config(tmp_path / "c.toml").mqtt) == "secret"
    (tmp_path / "mqtt.password").write_text("\nsecret")
    with pytest.raises(ConfigError, match="is empty: its first line is the secret") as refused:
        read_password(read_config(tmp_path / "c.toml").mqtt)
    assert "secret\n" not in str(refused.value)


def test_a_secret_that_others_may_read_is_told(tmp_path):
    """The password's and the key's file, whatever let them be opened."""
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "c.toml").write_text("[mqtt]\nuser = 'u'\npassword_file = 'password'\n")
    config = read_config(tmp_path / "c.toml")
    for mode, words in ((0o644, "open to everybody (mode 0644): chmod 600"), (0o640, "open to its group"), (0o600, "")):
        (tmp_path / "password").chmod(mode)
        assert words in "".join(open_secrets(config)) and bool(words) == bool(open_secrets(config))


def test_a_missing_file(tmp_path):
    """Names the file and where its form is described."""
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "none.toml")


def test_the_defaults_keep_within_what_the_daemon_may_take():
    """Beside the model at most 40 MiB, once the prefix cache is full."""
    assert 0 < EngineConfig().prefix_memory_mib <= 40 - DAEMON_MIB


@pytest.mark.parametrize(
    ("listen", "address"),
    [("127.0.0.1:9464", ("127.0.0.1", 9464)), ("[::1]:1", ("::1", 1)), ("0.0.0.0:0", ("0.0.0.0", 0))],
)
def test_addresses_to_listen_on(listen, address):
    """Host and port."""
    assert host_and_port(listen) == address
