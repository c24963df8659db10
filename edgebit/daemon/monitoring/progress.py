"""Whether work goes on: what a watchdog is told, and why it is not. Pure, in monotonic seconds."""

from dataclasses import dataclass

NETWORK_SILENCE_S = 180.0  # connecting alone may take a minute: names, TCP, TLS
LOAD_MAX_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The last signs of life of the parts."""

    network_at: float  # of the network thread
    loading_since: float | None  # the model is being loaded; None: it is there, or will not come
    step_at: float | None  # the engine's last step, while it computes; None: it is idle


def stall(progress: Progress, now: float, step_max_s: float) -> str | None:
    """Which part stands still, in words; None where all goes on.

    A slow engine is none that stands: each token and each pass of a prefill is a step.
    """
    if now - progress.network_at > NETWORK_SILENCE_S:
        return f"the network thread gave no sign of life for {NETWORK_SILENCE_S:.0f} s"
    if progress.loading_since is not None and now - progress.loading_since > LOAD_MAX_S:
        return f"the model has not been loaded within {LOAD_MAX_S:.0f} s"
    if progress.step_at is not None and now - progress.step_at > step_max_s:
        return f"the engine has made no step for {step_max_s:.0f} s"
    return None
