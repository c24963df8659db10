"""What a deploy will do, or why it cannot: decided from a description of the device, before anything is touched."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from edgebit.bundle.archive import Bundle
from edgebit.bundle.manifest import (
    DAEMON_MEMBER,
    LIBRARY_MEMBER,
    MANIFEST_NAME,
    MODEL_MEMBER,
    RUNNER_MEMBER,
    SIGNATURE_NAME,
    FileEntry,
    Manifest,
    Release,
)
from edgebit.bundle.signature import PublicKey, find_signers, parse_signatures
from edgebit.bundle.trust import POLICY_NAME, Offer, judge, parse_policy, policy_after
from edgebit.device_probe import DeviceState, Python
from edgebit.errors import BundleError, DeployError

PYTHON_MIN = (3, 11)
DISK_MARGIN_BYTES = 16 << 20  # for logs, state and the file system itself
MEMORY_MARGIN_BYTES = 64 << 20  # Python, the daemon and a small KV cache
CHECK_TIMEOUT_S = 120.0
SERVICES = ("auto", "systemd", "supervisor")  # that may be asked to keep the daemon running
SLOW_S = 3600.0  # of sending; what takes longer has to be insisted on

Action = Literal[
    "judge",
    "prepare",
    "settle",
    "verify",
    "send",
    "stage",
    "selftest",
    "configure",
    "ensure",
    "switch",
    "start",
    "check",
    "commit",
]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a deploy does: `line` says it to the user."""

    action: Action
    line: str
    name: str = ""  # the file to send
    bytes: int = 0  # to send


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """The public keys that this machine knows, for devices that trust none yet, and for their names."""

    keys: Mapping[str, PublicKey] = field(default_factory=dict)  # name -> key
    demanded: bool = False  # refuse, for every device, what none of them signed


@dataclass(frozen=True, kw_only=True, slots=True)
class InstallOptions:
    """What the user chose for a deploy."""

    settings: Mapping[str, Mapping[str, Any]] = field(
        default_factory=dict
    )  # for edgebitd.toml: {section: {key: value}}
    service: str = "auto"  # one of SERVICES
    force: bool = False  # deploy again what is there, or was taken back
    check_timeout_s: float = CHECK_TIMEOUT_S
    stay_up_s: float = 0.0  # that it must stay up after its first answer, and then answer again
    min_tok_s: float = 0.0  # decode; slower is taken back
    rss_max_mib: float = 0.0  # of the daemon, the mapped model aside; more is taken back; 0: any
    yes_slow: bool = False  # send also what takes longer than SLOW_S
    known: KnownKeys = field(default_factory=KnownKeys)


def default_service(url: str) -> str:
    """How a daemon is kept running: a device's way, but on this very machine nothing is left in the system."""
    return "supervisor" if url.startswith("local:") else "auto"


def plan_deploy(bundle: Bundle, state: DeviceState, options: InstallOptions) -> list[Step]:
    """What it takes to bring the bundle to the device: to be let in, and then to be installed.

    Pure. Raises DeployError where the device cannot run it, BundleError where the device would not let it in.
    """
    steps = plan_install(bundle.manifest, bundle.id, state, options)
    _refuse_other_signers(bundle.offer, options.known)
    if not any(step.action == "stage" for step in steps):
        return steps  # nothing of it comes in, so there is nothing to judge: it was let in and kept once
    again = _is_there(bundle.id, state)
    return [plan_judgement(bundle.offer, bundle.manifest.release, state, options, again=again), *steps]


def plan_judgement(
    offer: Offer, release: Release | None, state: DeviceState, options: InstallOptions, *, again: bool = False
) -> Step:
    """How the device will see the bundle's signature, said before anything is sent: the verdict is the device's own.

    again: it seems to be the bundle that runs, which the device lets in again if it is that, byte for byte.
    Pure. Raises BundleError where it would refuse.
    """
    policy = parse_policy(state.trust.encode(), f"{state.root}/{POLICY_NAME} on the device") if state.trust else None
    first_keys, now = tuple(options.known.keys.values()), datetime.fromtimestamp(state.clock_s, UTC)
    _refuse_other_signers(offer, options.known)
    try:
        accepted = judge(offer, policy, first_keys, now)
    except BundleError:
        if not again:
            raise
        return Step("judge", "let the bundle in again, if it is the one that runs, byte for byte")
    if not accepted:
        rule = "its policy allows" if policy is not None else "any from now on"
        return Step("judge", f"let the bundle in without a signature, as {rule}: nothing proves who built it")
    after, names = policy_after(policy, release, accepted), {key: name for name, key in options.known.keys.items()}

    def say(keys: Iterable[PublicKey]) -> str:
        return ", ".join(f"{key.id} ({names[key]})" if names.get(key, key.id) != key.id else key.id for key in keys)

    line = f"check the signature by key {say(accepted)} and sequence {after.floor}"
    if policy is None or not policy.keys:
        line += f"; from then on the device takes only bundles signed by {say(after.keys)}"
    elif after.keys != policy.keys:
        line += f"; then the device trusts key {say(after.keys)} instead of {say(policy.keys)}"
    return Step("judge", line)


def plan_install(manifest: Manifest, identity: str, state: DeviceState, options: InstallOptions) -> list[Step]:
    """What it takes to bring the bundle `identity` to the device, in order.

    Pure. Raises DeployError, naming the reason, where the device cannot run it.
    """
    if state.python is None:
        return _plan_runner(manifest, identity, state, options)
    _refuse_unfit(manifest, state, (DAEMON_MEMBER, LIBRARY_MEMBER, MODEL_MEMBER))
    _refuse_python(state.python)
    if not state.configured and "mqtt" not in options.settings:
        raise DeployError("the device does not know its broker yet. Name it: --mqtt mqtt://HOST[:PORT]")
    if options.service == "systemd" and state.init != "systemd":
        raise DeployError("--service systemd: systemd does not run on this device. Leave --service out")
    configure = [Step("configure", "write edgebitd.toml")] if options.settings else []
    check = Step("check", f"wait for an answer over MQTT, at most {options.check_timeout_s:g} s{_asked(options)}")
    steps = [Step("prepare", f"make {state.root}")] if not state.has_root else []
    active = state.slots.get(state.active)
    if _is_there(identity, state) and not options.force:
        here = f"bundle {identity} is there already: start its daemon "
        if not configure:
            return [Step("ensure", f"{here}if it does not run"), check]
        keep = Step("commit", "keep the settings")
        return [*configure, Step("ensure", f"{here}again if the settings differ"), check, keep]
    if (reason := state.refused.get(identity)) and not options.force:
        raise DeployError(
            f"bundle {identity} was taken back on this device: {reason}. Build a better one, or use --force"
        )

    lacking = [name for name in _sending_order(manifest) if not state.holds(manifest.files[name])]
    sends: dict[str, Step] = {}
    for name in lacking:
        entry = manifest.files[name]
        size = entry.size - state.partial(entry)
        rest = f", the rest of {_size(entry.size)}" if size < entry.size else ""
        sends.setdefault(
            entry.sha256,
            Step(
                "send",
                f"send {name}: {_size(size)}{rest}" if size else f"take in {name}, which was sent before",
                name,
                size,
            ),
        )
    in_order = list(sends.values())
    _refuse_full(in_order, state)
    if there := len({entry.sha256 for entry in manifest.files.values()} - set(sends)):
        # Whatever is damaged there is sent after all; the agent does it, so the agent goes first.
        agent_first = 1 if in_order and in_order[0].name == DAEMON_MEMBER else 0
        in_order.insert(agent_first, Step("verify", f"check the sums of {there} files that are there"))
    steps += in_order
    if active and active["status"] == "trying":
        steps.append(Step("settle", f"settle bundle {active['id']}, whose deploy was cut off"))
    steps += [
        Step("stage", f"check what was sent, and lay bundle {identity} into the free slot"),
        Step("selftest", "run the golden probes there, bit for bit"),
        *configure,
    ]
    before = f", once that of bundle {active['id']} has answered what it has" if active else ""
    return [
        *steps,
        Step("switch", f"switch to bundle {identity}, on trial"),
        Step("start", f"start the daemon{before}"),
        check,
        Step("commit", "keep it, and throw away what no slot needs"),
    ]


def _asked(options: InstallOptions) -> str:
    """What else the health gate wants."""
    wanted = [
        f"{options.stay_up_s:g} s without a restart" if options.stay_up_s else "",
        f"{options.min_tok_s:g} tok/s" if options.min_tok_s else "",
        f"at most {options.rss_max_mib:g} MiB" if options.rss_max_mib else "",
    ]
    return "".join(f"; {words}" for words in wanted if words)


def bytes_to_send(steps: Sequence[Step]) -> int:
    """What a plan sends over the way to the device, in bytes."""
    return sum(step.bytes for step in steps)


def bundle_bytes(manifest: Manifest) -> int:
    """What a device without any of it would be sent: each file once."""
    return sum({entry.sha256: entry.size for entry in manifest.files.values()}.values())


def refuse_slow(steps: Sequence[Step], seconds: float, manifest: Manifest, state: DeviceState) -> None:
    """Raise DeployError where sending takes longer than SLOW_S, and say how the largest file comes there otherwise."""
    if seconds <= SLOW_S:
        return
    name = max((step for step in steps if step.action == "send"), key=lambda step: step.bytes).name
    root = state.root if state.root.startswith("/") else f"~/{state.root}"
    place = f"{root}/store/{manifest.files[name].sha256}"
    raise DeployError(
        f"sending {_size(bytes_to_send(steps))} takes about {duration(seconds)} over this line. Bring {name} there some"
        f" other way, such as an SD card or ssh, as {place}: it is found by its sum (tar -xOf BUNDLE {name} writes it)."
        " Or insist with --yes-slow"
    )


def duration(seconds: float) -> str:
    """A time as people say it: 40 s, 12 min, 39 h."""
    for unit, length, limit in (("s", 1, 100), ("min", 60, 100 * 60)):
        if seconds < limit:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 3600:.0f} h"


def _is_there(identity: str, state: DeviceState) -> bool:
    """Whether the bundle runs on the device, and was kept."""
    active = state.slots.get(state.active)
    return bool(active and active["id"] == identity and active["status"] == "good")


def _refuse_other_signers(offer: Offer, known: KnownKeys) -> None:
    """Raise BundleError for a bundle that none of the known keys signed, where that is demanded."""
    if not known.demanded:
        return
    keys = tuple(known.keys.values())
    signatures = parse_signatures(offer.signature, SIGNATURE_NAME) if offer.signature is not None else ()
    if not find_signers(offer.manifest, signatures, keys, MANIFEST_NAME):
        by = ", ".join(signature.id for signature in signatures)
        raise BundleError(
            f"a bundle signed by key {' or '.join(key.id for key in keys)} is wanted, and this one is "
            + (f"signed by key {by}" if by else "not signed")
        )


def _sending_order(manifest: Manifest) -> list[str]:
    """The agent first, since it checks the others; then small before large, so that a fault shows early."""
    return sorted(manifest.files, key=lambda name: (name != DAEMON_MEMBER, manifest.files[name].size, name))


def _plan_runner(manifest: Manifest, identity: str, state: DeviceState, options: InstallOptions) -> list[Step]:
    """The same for a device without Python: edgebit-run and the model, tested before the switch, and no daemon."""
    if options.settings or options.min_tok_s or options.rss_max_mib:
        raise DeployError(
            "the device has no python3, so no daemon can answer over MQTT there. Install it (sudo apt install python3;"
            " in Termux: pkg install python); or, for edgebit-run alone, deploy with --to and without broker, name and"
            " limits"
        )
    _refuse_unfit(manifest, state, (RUNNER_MEMBER, MODEL_MEMBER))
    selftest = Step("selftest", "run the golden probes there, bit for bit, and ask for four tokens")
    files = runner_files(manifest)
    if _is_there(identity, state) and not options.force:
        there = Step("verify", f"bundle {identity} is there already: check its sums")
        return [there, selftest]
    lacking = {entry.sha256: name for name, entry in files.items() if not state.holds(entry)}
    sends = []
    for name in sorted(lacking.values(), key=lambda name: files[name].size):
        size = files[name].size - state.partial(files[name])
        sends.append(Step("send", f"send {name}: {_size(size)} of {_size(files[name].size)}", name, size))
    _refuse_full(sends, state)
    return [
        Step("prepare", f"make {state.root}: no python3 there, so edgebit-run alone, without a daemon and MQTT"),
        *([Step("verify", "check the sums of what is there")] if any(map(state.holds, files.values())) else []),
        *sends,
        Step("stage", f"lay bundle {identity} into the free slot"),
        selftest,
        Step("switch", f"switch to bundle {identity}"),
        Step("commit", "throw away what no slot needs"),
    ]


def runner_files(manifest: Manifest) -> dict[str, FileEntry]:
    """The files of a bundle that a device without Python gets."""
    names = (LIBRARY_MEMBER, RUNNER_MEMBER, MODEL_MEMBER)
    return {name: manifest.files[name] for name in names if name in manifest.files}


def _refuse_unfit(manifest: Manifest, state: DeviceState, members: Sequence[str]) -> None:
    """Raise DeployError where the bundle cannot run on the device, or lacks one of `members`."""
    if state.in_the_way:
        raise DeployError(f"{state.in_the_way} on the device is no folder. Choose another one")
    if state.strange:
        raise DeployError(
            f"{state.root} on the device is not edgebit's: it holds {', '.join(state.strange[:3])}. Choose another"
            " folder with --root"
        )
    for needed in members:
        if needed not in manifest.files:
            raise DeployError(f"the bundle holds no {needed}, so it cannot be deployed. Build it again")
    if manifest.target.arch != state.arch:
        raise DeployError(
            f"the bundle was built for {manifest.target.arch} ({manifest.target.name}), the device's programs are"
            f" {state.arch}"
            + (
                f" (its kernel is {state.machine}: a 32-bit system on a 64-bit CPU)"
                if state.machine != state.arch
                else ""
            )
            + ". Build it with another --target"
        )
    if state.noexec:
        raise DeployError(f"{state.root} lies on a file system mounted noexec. Choose another folder with --root")
    model = manifest.files[MODEL_MEMBER].size
    if state.memory_bytes and model + MEMORY_MARGIN_BYTES > state.memory_bytes:
        raise DeployError(
            f"the model has {model / 1e6:.0f} MB, the device {state.memory_bytes / 1e6:.0f} MB of memory in all, of"
            f" which {MEMORY_MARGIN_BYTES / 1e6:.0f} MB go to the daemon. Take a smaller model"
        )


def _refuse_full(sends: Sequence[Step], state: DeviceState) -> None:
    """Raise DeployError where there is no room for what is to be sent."""
    to_send = bytes_to_send(sends)
    if to_send + DISK_MARGIN_BYTES > state.free_bytes:
        raise DeployError(
            f"the device has {state.free_bytes / 1e6:.1f} MB free under {state.root}; {to_send / 1e6:.1f} MB are to be"
            f" sent, and {DISK_MARGIN_BYTES / 1e6:.1f} MB should stay free. Make room there"
        )


def _refuse_python(python: Python) -> None:
    """Raise DeployError where the daemon cannot run with it."""
    if python.version < PYTHON_MIN:
        have, need = ".".join(map(str, python.version)), ".".join(map(str, PYTHON_MIN))
        raise DeployError(f"the device has Python {have}, the daemon needs {need} or later. Update the device's system")
    if python.lacks:
        lacks = ", ".join(python.lacks)
        raise DeployError(f"the device's Python lacks {lacks}. Install the whole of it: sudo apt install python3-full")


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
