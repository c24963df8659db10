"""The codes of refusals: whatever the daemon may say stands in docs/mqtt.md."""

import re
from pathlib import Path

import pytest
from mqtt_fixtures import ROOT

import edgebit.daemon

REFUSAL = re.compile(r'Refusal\(\s*(\d{3}),\s*"([a-z_]+)"')


def test_every_code_is_documented():
    """In the row of its status."""
    page = ROOT / "docs" / "mqtt.md"
    if not page.exists():
        pytest.skip("the documentation lies in the repository")
    rows = dict(re.findall(r"^\| (\d{3}) \| `.*?\| (.*?) \|", page.read_text(), re.MULTILINE))
    sources = Path(edgebit.daemon.__file__).parent.rglob("*.py")
    raised = {found for source in sources for found in REFUSAL.findall(source.read_text())}
    raised |= {("451", "content_filtered"), ("451", "response_filtered")}  # by name, in content_filter.py
    assert len(raised) > 30
    assert sorted(f"{status} {code}" for status, code in raised if f"`{code}`" not in rows.get(status, "")) == []
