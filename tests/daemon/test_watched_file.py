"""A file that is read again while it is in use."""

import os

import pytest

from edgebit.daemon.admission.principals import Principals
from edgebit.daemon.config.safeguards import ContentFilterConfig
from edgebit.daemon.content_filter.content_filter import ContentFilter
from edgebit.errors import ConfigError


def rules(path):
    return ContentFilter(ContentFilterConfig(rules=str(path)))


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (rules, "word both bad\n", "regex both " + "(" * 20_000 + "a" + ")" * 20_000),
        (lambda path: Principals(str(path)), "[a]\n", "[a]\nkey = " + "[" * 20_000 + "]" * 20_000),
    ],
    ids=["rules", "principals"],
)
def test_a_file_of_brackets_ends_nothing(tmp_path, read, good, bad):
    """At the start it is refused; later what was read before stays in use, and the fault is told."""
    path = tmp_path / "file"
    path.write_text(bad)
    with pytest.raises(ConfigError, match="too deep"):
        read(path)
    path.write_text(good)
    os.utime(path, (1, 1))
    user = read(path)
    path.write_text(bad)
    user.reload()
    assert "too deep" in user.fault
