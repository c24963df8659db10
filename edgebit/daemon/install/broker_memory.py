"""What the broker retains of a device: it stays there when the device is gone, unless it is taken back."""

import contextlib
from pathlib import Path
from typing import Any

from edgebit.daemon.install.settings import CONFIG_NAME
from edgebit.errors import EdgebitError

HOME_ASSISTANT_MARK = "home_assistant"  # in state/: the topic on which Home Assistant was told of the device


def forget_at_broker(root: Path) -> dict[str, Any]:
    """Take back what the daemon of `root`, which has ended, had retained.

    Gives nothing where that was done, or there are no settings; else `retained`: `broker`, `topics`, and `why` not.
    """
    from edgebit.daemon.config.reader import read_config
    from edgebit.daemon.install.health import clear_retained

    try:
        config = read_config(root / CONFIG_NAME)
    except EdgebitError:
        return {}
    topics = [config.topics.availability, config.topics.info, config.topics.status]
    with contextlib.suppress(OSError, UnicodeDecodeError):
        topics.append((root / "state" / HOME_ASSISTANT_MARK).read_text().strip())
    topics = [topic for topic in topics if topic]
    try:
        clear_retained(config, topics)
    except EdgebitError as error:
        return {"retained": {"broker": config.mqtt.url, "topics": topics, "why": str(error)}}
    return {}
