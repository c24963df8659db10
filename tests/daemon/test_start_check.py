"""`run --check-config` says what the daemon would end of, or judge no text with."""

import sys

import pytest
from pki_fixtures import Authority

from edgebit.daemon.__main__ import main
from edgebit.errors import ConfigError, OnnxError

SIGNED = '[mqtt]\nauth = "topic"\n[identity]\nprincipals = "other"\n'


@pytest.fixture
def check(tmp_path, capfd):
    """Checks a configuration that may name the file `other`; gives the exit code and what was said."""

    def run(toml, other=""):
        (tmp_path / "other").write_text(other)
        (tmp_path / "edgebitd.toml").write_text(f'[device]\nname = "pi"\n{toml}')
        code = main(["run", "--root", str(tmp_path), "--check-config"])
        said = capfd.readouterr()
        assert sorted(file.name for file in tmp_path.iterdir()) == ["edgebitd.toml", "other"]
        return code, said.out + said.err

    return run


@pytest.mark.parametrize(
    ("toml", "other", "said"),
    [
        ('[content_filter]\nrules = "other"\n', "word both fine\nsword both x\n", "other: line 2: a rule is KIND"),
        ('[content_filter]\nclassifier = ["/no/such"]\n', "", "classifier '/no/such' is no program that can be run"),
        ('[content_filter]\nclassifier = ["/etc/passwd"]\n', "", "is no program that can be run"),
        ('[content_filter]\nclassifier = ["/etc"]\n', "", "is no program that can be run"),
        ('[content_filter]\nclassifier = ["no-such-program"]\n', "", "is no program that can be run"),
        (SIGNED, "[alice]\nkey = 'x'\n", "other"),
        ('[mqtt]\nurl = "mqtts://h"\nca = "other"\n', "no pem", "holds no certificate that can be read"),
        ("[alerts]\nheat_warning_c = 90.0\n", "", "heat_warning_c is beyond heat_critical_c"),
        ("[alerts]\ndisk_warning_mib = 20.0\n", "", "disk_warning_mib is beyond disk_critical_mib"),
    ],
)
def test_what_is_wrong_is_named(check, toml, other, said):
    """With the code of a wrong configuration."""
    code, words = check(toml, other)
    assert code == ConfigError.exit_code and said in words


@pytest.mark.parametrize(
    ("toml", "other"),
    [
        ('[content_filter]\nrules = "other"\n', "word both fine\n"),
        (f'[content_filter]\nclassifier = ["{sys.executable}", "-c", ""]\n', ""),
        ('[content_filter]\nclassifier = ["sh", "-c", "exit 0"]\n', ""),
        ("[alerts]\nheat_warning_c = 90.0\nheat_critical_c = 0.0\ndisk_warning_mib = 0.0\n", ""),
        (SIGNED, ""),
    ],
)
def test_what_is_right_passes(check, toml, other):
    """A level that is off is beyond nothing."""
    code, words = check(toml, other)
    assert code == 0 and "device pi" in words, words


def test_a_certificate_without_its_key(tmp_path):
    """Both are read together."""
    (cert, _), (_, key) = Authority(tmp_path / "a").issue("pi"), Authority(tmp_path / "b").issue("pi")
    config = tmp_path / "edgebitd.toml"
    config.write_text(f'[device]\nname = "pi"\n[mqtt]\nurl = "mqtts://h"\ncert = "{cert}"\nkey = "{key}"\n')
    assert main(["run", "--root", str(tmp_path), "--check-config"]) == ConfigError.exit_code


def test_what_onnx_runtime_needs_is_looked_at(check, tmp_path):
    """The folder is one that edgebit wrote; what else it takes, a start finds out."""
    code, words = check(f'[engine]\nengine = "onnx"\nonnx_folder = "{tmp_path}"\n')
    assert code == OnnxError.exit_code and "holds no model.onnx" in words
