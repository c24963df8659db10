"""The sections of edgebitd.toml about who may ask for what, and what is written down of it (docs/privacy.md)."""

from dataclasses import dataclass

from edgebit.daemon.config.fields import file_name, one_of, within


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentityConfig:
    """[identity]: what belongs to single principals."""

    principals: str = file_name()  # TOML: keys for signed requests and own limits; read anew when it changes
    challenge_s: float = within(10, 86400, 600.0)  # how long a challenge is the newest (auth = "signed")


def identity_fault(identity: IdentityConfig, auth: str, protocol: str) -> str | None:
    """What of [identity] and the mode in [mqtt] does not fit together; None where all does."""
    if auth == "broker-prop" and protocol == "3.1.1":
        return '[mqtt]: auth = "broker-prop" needs MQTT 5: the name comes as one of its properties'
    if auth == "signed" and not identity.principals:
        return '[identity]: auth = "signed" needs principals, a file with the keys'
    if auth == "open" and identity.principals:
        return '[identity]: principals means nothing with auth = "open", where anybody takes any name'
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class RateLimitsConfig:
    """[rate_limits]: what one principal may take within a window; 0 is no limit."""

    window_s: float = within(1, 31 * 86400, 3600.0)
    requests: int = within(0, 1 << 40, 0)
    tokens: int = within(0, 1 << 40, 0)  # of prompts, where they had to be computed, and of answers
    joules: float = within(0, 1e12, 0.0)  # where they can be measured
    principals_max: int = within(1, 1 << 20, 4096)  # counted apart; 1.3 KB each at most


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptersConfig:
    """[adapters]: low-rank adapters beside the model (docs/mqtt.md)."""

    may_load: tuple[str, ...] = ()  # principals that may load and unload them over MQTT; empty: nobody
    max_count: int = within(0, 64, 8)  # loaded at once
    max_mib: int = within(1, 256, 8)  # of one file


@dataclass(frozen=True, kw_only=True, slots=True)
class ContentFilterConfig:
    """[content_filter]"""

    rules: str = file_name()
    classifier: tuple[str, ...] = ()  # a program and its arguments
    classifier_for: str = one_of("prompt", "answer", "both")
    classifier_timeout_s: float = within(0.1, 60, 2.0)
    classifier_fault: str = one_of("refuse", "allow")  # what a classifier that fails means


@dataclass(frozen=True, kw_only=True, slots=True)
class PrivacyConfig:
    """[privacy]: what is written down."""

    log_prompts: bool = False  # prompts and answers in the log
    security_log_kib: int = within(0, 1 << 20, 256)  # of a file of refusals; 0: none
    security_log_files: int = within(1, 100, 4)
