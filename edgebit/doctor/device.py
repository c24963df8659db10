"""A device over a transport: can it run a bundle, does it run one well, and does its daemon answer.

Judging is pure, from what the device said (facts.py, device_probe.py); only check_device() asks.
"""

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from edgebit.artifacts import LIBRARY_ALIGN
from edgebit.daemon.config.sections import PORTS
from edgebit.deploy.device import Device
from edgebit.deploy.plan import PYTHON_MIN
from edgebit.device_probe import DeviceState, probe
from edgebit.doctor.facts import Facts, ask_facts
from edgebit.doctor.finding import Finding, State, of_error
from edgebit.errors import DeployError, TransportError
from edgebit.transport import Options, Transport, open_transport

GROUP = "the device"
DAEMON_GROUP = "its daemon"

SKEW_WARN_S = 30.0
SKEW_FAIL_S = 86_400.0  # certificates begin and end by the day
HOT_C = 80.0  # where the kernel names no temperature of its own: from here a Raspberry Pi's firmware slows the cores
HOT_MARGIN_C = 5.0
_MIB = 1 << 20
MEMORY_WANTED = 128 * _MIB
DISK_NEEDED, DISK_WANTED = 64 * _MIB, 512 * _MIB
LOG_WANTED_MAX = 16 * _MIB
CHECK_TIMEOUT_S = 20.0
_CONNECT_S = 10

# Raspberry Pi documentation, get_throttled: the low bits are now, the same 16 places up since the last boot.
_THROTTLE_BITS = (
    (0, "under-voltage", "a better power supply or cable: 5 V at 3 A, 5 A for a Pi 5"),
    (1, "clock capped", "better cooling or power supply"),
    (2, "throttled", "better cooling or power supply"),
    (3, "soft temperature limit", "better cooling"),
)
_PYTHON_MEND = "sudo apt install python3; in Termux: pkg install python"
_CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3]))"


def check_device(url: str, options: Options) -> list[Finding]:
    """All that can be seen of the device at `url`. What is wrong with it is in the findings; nothing is raised."""
    findings: list[Finding] = []
    began = time.monotonic()
    try:
        with open_transport(url, options) as transport:
            state = probe(transport)
            asked = time.time()
            facts = ask_facts(transport)
            answered = time.time()
            findings.append(_reached(state, facts, time.monotonic() - began))
            findings += judge_device(state, facts)
            findings.append(judge_clock(facts, asked, answered))
            findings += _check_daemon(transport, state, facts)
    except TransportError as error:
        findings.append(of_error(GROUP, "still reachable" if findings else "reachable", error))
    return findings


def _found(name: str, state: State, detail: str, mend: str = "") -> Finding:
    return Finding(GROUP, name, state, detail, mend)


def _reached(state: DeviceState, facts: Facts, seconds: float) -> Finding:
    words = [state.host, facts.model, state.kernel, facts.libc]
    return _found("reachable", "ok", f"{', '.join(word for word in words if word)} (in {seconds:.1f} s)")


# ---- judging ----


def judge_device(state: DeviceState, facts: Facts) -> list[Finding]:
    """The device itself."""
    return [
        _architecture(state),
        _isa(state, facts),
        _python(state),
        *_onnxruntime(state, facts),
        _memory(state),
        *_swap(facts),
        _disk(state),
        _folder(state),
        _page_size(state),
        _service_manager(state, facts),
        *_governor(state, facts),
        _temperature(facts),
        *_throttling(facts),
    ]


def _architecture(state: DeviceState) -> Finding:
    name = "architecture"
    if state.arch in ("aarch64", "x86_64"):
        return _found(name, "ok", state.arch)
    if state.machine != state.arch:
        detail = f"its programs are {state.arch}, its kernel {state.machine}: a 32-bit system on a 64-bit CPU"
        return _found(name, "fail", detail, "install the 64-bit system, such as Raspberry Pi OS (64-bit)")
    return _found(name, "fail", f"{state.arch}: edgebit needs aarch64 or x86_64", "take another device")


def _isa(state: DeviceState, facts: Facts) -> Finding:
    """The ISA level that the library will take, as the kernel names the CPU's features."""
    name = "ISA level"
    taken, is_told, _ = facts.isa.partition(" (of: ")
    if is_told:
        return _found(name, "ok" if taken != "scalar" else "warn", f"{taken}, by the engine that is there")
    if not facts.features:
        return _found(name, "unknown", "/proc/cpuinfo names no features")
    levels = {
        "aarch64": (("i8mm", "i8mm"), ("dotprod", "asimddp"), ("neon", "asimd")),
        "x86_64": (("avx512vnni", "avx512_vnni"), ("avxvnni", "avx_vnni"), ("avx2", "avx2")),
    }.get(state.arch, ())
    level = next((level for level, feature in levels if feature in facts.features), "scalar")
    if level == "scalar":
        return _found(name, "warn", "scalar: no vector instructions that edgebit knows, so it is slow")
    return _found(name, "ok", level)


def _python(state: DeviceState) -> Finding:
    name = "Python"
    if state.python is None:
        detail = "no python3: edgebit-run alone can be deployed, without daemon and MQTT"
        return _found(name, "warn", detail, _PYTHON_MEND)
    version = ".".join(map(str, state.python.version))
    if state.python.version < PYTHON_MIN:
        need = ".".join(map(str, PYTHON_MIN))
        return _found(name, "fail", f"{version}, the daemon needs {need} or later", "update the device's system")
    if state.python.lacks:
        lacks = ", ".join(state.python.lacks)
        return _found(name, "fail", f"{version} lacks {lacks}", "sudo apt install python3-full")
    return _found(name, "ok", f"{version} ({state.python.path})")


def _onnxruntime(state: DeviceState, facts: Facts) -> Iterator[Finding]:
    """An option: that it is not there is no fault."""
    if state.python is not None:
        words = facts.onnxruntime or 'not installed; only a daemon with engine = "onnx" needs it'
        yield _found("onnxruntime (an option)", "ok", words)


def _memory(state: DeviceState) -> Finding:
    name = "memory"
    if not state.memory_bytes:
        return _found(name, "unknown", "/proc/meminfo cannot be read")
    detail = f"{_mib(state.available_bytes)} of {_mib(state.memory_bytes)} available"
    if state.available_bytes >= MEMORY_WANTED:
        return _found(name, "ok", detail)
    return _found(name, "warn", detail, "stop other programs, or take a smaller model or context")


def _swap(facts: Facts) -> Iterator[Finding]:
    if not facts.swap_bytes:
        yield _found("swap", "ok", "none")
        return
    detail = f"{_mib(facts.swap_used_bytes)} of {_mib(facts.swap_bytes)} used"
    busy = facts.swap_used_bytes > max(facts.swap_bytes // 2, MEMORY_WANTED)
    mend = "more goes into memory than there is: a smaller model or context" if busy else ""
    yield _found("swap", "warn" if busy else "ok", detail, mend)


def _disk(state: DeviceState) -> Finding:
    detail = f"{_mib(state.free_bytes)} free for {state.root}"
    if state.free_bytes >= DISK_WANTED:
        return _found("disk", "ok", detail)
    verdict: State = "warn" if state.free_bytes >= DISK_NEEDED else "fail"
    return _found("disk", verdict, detail, "make room there, or choose another folder with --root")


def _folder(state: DeviceState) -> Finding:
    name = "folder"
    if state.noexec:
        return _found(name, "fail", f"{state.root} is mounted noexec", "choose another folder with --root")
    if state.strange:
        detail = f"{state.root} holds what is not edgebit's: {', '.join(state.strange[:3])}"
        return _found(name, "fail", detail, "choose another folder with --root")
    return _found(name, "ok", state.root if state.has_root else f"{state.root}, which is not there yet")


def _page_size(state: DeviceState) -> Finding:
    if not state.page_bytes:
        return _found("page size", "unknown", "getconf PAGESIZE says nothing")
    kib = state.page_bytes // 1024
    if state.page_bytes <= LIBRARY_ALIGN:
        return _found("page size", "ok", f"{kib} KB")
    return _found("page size", "fail", f"{kib} KB, more than the 64 that native files are aligned to", "another kernel")


def _service_manager(state: DeviceState, facts: Facts) -> Finding:
    name = "service manager"
    if state.init != "systemd":
        detail = "no systemd: the daemon is started again when it dies, but not after a reboot"
        return _found(name, "warn", detail, _boot_mend(state, facts))
    if state.uid == 0:
        return _found(name, "ok", "systemd, as root")
    if facts.linger:
        return _found(name, "ok", "systemd of this user, which goes on without a login (linger)")
    return _found(
        name, "warn", "systemd of this user ends at the last logout", "sudo loginctl enable-linger $USER, there"
    )


def _boot_mend(state: DeviceState, facts: Facts) -> str:
    if facts.libc.startswith("Android"):
        return "the app Termux:Boot"
    pyz = f"{state.root}/active/edgebitd.pyz"
    return f"crontab -e, there: @reboot python3 {pyz} agent --root {state.root} start"


def _governor(state: DeviceState, facts: Facts) -> Iterator[Finding]:
    if facts.governor == "powersave" and state.arch == "aarch64":  # on a PC it is the name of an ordinary one
        mend = "echo schedutil | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        yield _found("clock governor", "warn", "powersave: the cores stay at their lowest clock", mend)
    elif facts.governor:
        yield _found("clock governor", "ok", facts.governor)


def _temperature(facts: Facts) -> Finding:
    name = "temperature"
    sane = [zone for zone in facts.zones if -40 <= zone.celsius <= 150]
    if not sane:
        return _found(name, "unknown", "no thermal zone can be read")
    zone = max(sane, key=lambda zone: zone.celsius - (zone.slows_at or HOT_C))
    limit = zone.slows_at or HOT_C
    detail = f"{zone.celsius:.0f} °C ({zone.kind}), slowed down from {limit:.0f}"
    if zone.celsius < limit - HOT_MARGIN_C:
        return _found(name, "ok", detail)
    return _found(name, "warn", detail, "better cooling, or fewer threads")


def _throttling(facts: Facts) -> Iterator[Finding]:
    """Now and since the last boot: the firmware's word, and the kernel's where there is no such firmware."""
    if facts.throttled is None and "Raspberry Pi" in facts.model:
        why = facts.throttled_why or "no vcgencmd"
        mend = "sudo apt install raspi-utils; the user must be in the group video"
        yield _found("throttling", "unknown", why, mend)
    elif facts.throttled is not None:
        yield from _firmware_throttling(facts.throttled)
    if facts.cooling is not None:
        mend = "better cooling" if facts.cooling else ""
        detail = "slows the cores now" if facts.cooling else "lets the cores run"
        yield _found("kernel's cooling", "warn" if facts.cooling else "ok", detail, mend)


def _firmware_throttling(bits: int) -> Iterator[Finding]:
    now = [(text, mend) for bit, text, mend in _THROTTLE_BITS if bits >> bit & 1]
    before = [(text, mend) for bit, text, mend in _THROTTLE_BITS if bits >> (16 + bit) & 1]
    if now:
        state: State = "fail" if bits & 1 else "warn"  # too little voltage corrupts memory cards and answers
        yield _found("throttling now", state, ", ".join(text for text, _ in now), now[0][1])
    else:
        yield _found("throttling now", "ok", "none")
    if before:
        yield _found("throttling since boot", "warn", ", ".join(text for text, _ in before), before[0][1])
    else:
        yield _found("throttling since boot", "ok", "none")


def judge_clock(facts: Facts, asked: float, answered: float) -> Finding:
    """The device's clock against ours, as far as the way there lets it be known."""
    name = "clock"
    if facts.now is None:
        return _found(name, "unknown", "date says nothing")
    unsure = (answered - asked) / 2 + 1  # the device gives whole seconds
    skew = facts.now - (asked + answered) / 2
    detail = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's, give or take {unsure:.0f} s"
    mend = "sudo timedatectl set-ntp true, there"
    if abs(skew) - unsure > SKEW_FAIL_S:
        return _found(name, "fail", f"{detail}: certificates are not valid, and requests expire", mend)
    if abs(skew) - unsure > SKEW_WARN_S:
        return _found(name, "warn", f"{detail}: requests expire too early or late", mend)
    if facts.synchronised is False:
        return _found(name, "warn", f"{detail}, and not synchronised", mend)
    return _found(name, "ok", detail)


# ---- the daemon ----


def _check_daemon(transport: Transport, state: DeviceState, facts: Facts) -> list[Finding]:
    if state.python is None and facts.isa:
        return [Finding(DAEMON_GROUP, "installed", "ok", "edgebit-run alone; there is no Python for a daemon")]
    if not state.pyz or state.python is None:
        return [Finding(DAEMON_GROUP, "installed", "unknown", "no bundle is deployed", "edgebit deploy")]
    device = Device(transport, state, state.pyz)
    try:
        status = device.ask("status")
    except DeployError as error:
        return [of_error(DAEMON_GROUP, "installed", error)]
    findings = judge_daemon(status, state, facts, transport.url)
    findings += _broker(transport, state, status)
    if status.get("up"):
        findings.append(_answers(device, transport.url))
    return findings


def judge_daemon(status: dict[str, Any], state: DeviceState, facts: Facts, url: str) -> list[Finding]:
    """What the agent says of slots, service, settings and log; it may be of another version of edgebit."""
    findings = [_active(status)]
    if status.get("config_error"):
        mend = f"correct {state.root}/edgebitd.toml there, or deploy again"
        findings.append(Finding(DAEMON_GROUP, "settings", "fail", str(status["config_error"]), mend))
    if status.get("up"):
        running = f"process {status['pid']}" if status.get("pid") else "starting again"
        findings.append(Finding(DAEMON_GROUP, "running", "ok", running))
    else:
        mend = f"edgebit logs {url}; edgebit deploy starts it"
        findings.append(Finding(DAEMON_GROUP, "running", "fail", "it does not run", mend))
    findings += _starts_at_boot(status.get("service"), state, facts)
    if meter := status.get("meter"):
        fault = meter["fault"]
        mend = "plug it in, or give the daemon's user the group dialout" if fault else ""
        findings.append(Finding(DAEMON_GROUP, "power meter", "fail" if fault else "ok", fault or meter["port"], mend))
    for identity, reason in (status.get("refused") or {}).items():
        mend = "build a better one, or deploy it with --force"
        findings.append(Finding(DAEMON_GROUP, "refused bundle", "warn", f"{identity}: {reason}", mend))
    if parts := [size for name, size in state.stored.items() if name.endswith(".part")]:
        detail, mend = f"{len(parts)} with {_mib(sum(parts))}", "the next edgebit deploy goes on with them"
        findings.append(Finding(DAEMON_GROUP, "unfinished copies", "warn", detail, mend))
    held = f"{_mib(sum(state.stored.values()))} in {len(state.stored)} files, {len(state.slots)} slots"
    findings.append(Finding(DAEMON_GROUP, "store", "ok", held))
    is_large = facts.log_bytes > LOG_WANTED_MAX
    mend = f"edgebit logs {url}: something repeats" if is_large else ""
    findings.append(Finding(DAEMON_GROUP, "log", "warn" if is_large else "ok", _mib(facts.log_bytes), mend))
    return findings


def _active(status: dict[str, Any]) -> Finding:
    active = (status.get("slots") or {}).get(status.get("active"))
    if active is None:
        return Finding(DAEMON_GROUP, "installed", "fail", "no bundle is active", "edgebit deploy")
    words = f"bundle {active['id']} ({active.get('name', '?')}), {active['status']}"
    if active["status"] == "good":
        return Finding(DAEMON_GROUP, "installed", "ok", words)
    return Finding(DAEMON_GROUP, "installed", "warn", words, "edgebit deploy settles it")


def _starts_at_boot(kind: str | None, state: DeviceState, facts: Facts) -> Iterator[Finding]:
    name = "starts at boot"
    if facts.enabled and facts.enabled != "enabled":
        mend = f"systemctl {'--user ' if kind == 'systemd-user' else ''}enable edgebit-daemon.service, there"
        yield Finding(DAEMON_GROUP, name, "warn", f"its unit is {facts.enabled}", mend)
    elif kind == "supervisor":
        detail = "kept running by its own supervisor: not after a reboot"
        yield Finding(DAEMON_GROUP, name, "warn", detail, _boot_mend(state, facts))
    elif kind == "termux":
        detail = "started by the app Termux:Boot, if that is there, which cannot be seen from here"
        yield Finding(DAEMON_GROUP, name, "unknown", detail, "install Termux:Boot, and open it once")
    elif kind:
        yield Finding(DAEMON_GROUP, name, "ok", kind)


def _broker(transport: Transport, state: DeviceState, status: dict[str, Any]) -> list[Finding]:
    """Whether the device can open a connection to its broker; what the broker says then is the daemon's to tell."""
    url = status.get("broker")
    if not url or state.python is None:
        return [Finding(DAEMON_GROUP, "broker", "unknown", "the device has no settings", "edgebit deploy --mqtt URL")]
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or PORTS.get(parts.scheme, 1883)
    done = transport.run([state.python.path, "-c", _CONNECT, host, str(port), str(_CONNECT_S)], timeout_s=60)
    if done.code == 0:
        return [Finding(DAEMON_GROUP, "broker", "ok", f"{host}:{port} is open to the device")]
    said = next(iter(done.stderr.strip().splitlines()[-1:]), f"code {done.code}")
    mend = "start the broker, open its firewall, or name another: edgebit deploy --mqtt URL"
    return [Finding(DAEMON_GROUP, "broker", "fail", f"{host}:{port}: {said}", mend)]


def _answers(device: Device, url: str) -> Finding:
    """A ping and four tokens over the device's own broker."""
    name = "answers"
    try:
        answer = device.ask("check", "--timeout-s", str(CHECK_TIMEOUT_S), timeout_s=CHECK_TIMEOUT_S + 60)
    except DeployError as error:
        return Finding(DAEMON_GROUP, name, "fail", str(error), f"edgebit logs {url}")
    return Finding(
        DAEMON_GROUP, name, "ok", f"as {answer['device']}: ping {answer['ping_s']} s, answer {answer['answer_s']} s"
    )


def _mib(size: int) -> str:
    return f"{size / _MIB:,.0f} MiB"
