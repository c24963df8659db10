"""What the doctor asks a device beyond the probe of a deploy: one POSIX shell script (dash, busybox, toybox), one trip.

Nothing in it changes anything. vcgencmd gets no further argument, since one would clear what it remembers.
"""

from dataclasses import dataclass

from edgebit.errors import TransportError
from edgebit.transport import Transport

TIMEOUT_S = 120.0

_SCRIPT = r"""
root=$1
limit() { if command -v timeout >/dev/null 2>&1; then timeout 10 "$@"; else "$@"; fi; }
first() { [ -r "$1" ] && head -n 1 "$1" 2>/dev/null; }
echo "now $(date +%s)"
echo "model $(tr -d '\0' 2>/dev/null </proc/device-tree/model)"
if command -v getprop >/dev/null 2>&1; then
  echo "libc Android $(getprop ro.build.version.release)"
elif command -v ldd >/dev/null 2>&1; then
  echo "libc $(limit ldd --version 2>&1 | head -n 1)"
fi
echo "features $(grep -m 1 -E '^(Features|flags)[[:space:]]*:' /proc/cpuinfo)"
[ -r /proc/meminfo ] && while read -r key value _; do
  case $key in
    SwapTotal:) echo "swap_kib $value" ;;
    SwapFree:) echo "swap_free_kib $value" ;;
  esac
done </proc/meminfo
for zone in /sys/class/thermal/thermal_zone*; do
  [ -r "$zone/temp" ] || continue
  trip=
  for kind in "$zone"/trip_point_*_type; do
    case $(first "$kind") in passive) trip=$(first "${kind%type}temp"); break ;; esac
  done
  echo "zone $(first "$zone/type") $(first "$zone/temp") $trip"
done
for device in /sys/class/thermal/cooling_device*; do
  case $(first "$device/type") in
    *cpufreq* | [Pp]rocessor) echo "cooling $(first "$device/cur_state")" ;;
  esac
done
echo "governor $(first /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor)"
for place in vcgencmd /usr/bin/vcgencmd /opt/vc/bin/vcgencmd; do
  command -v "$place" >/dev/null 2>&1 && { echo "throttled $(limit "$place" get_throttled 2>&1 | head -n 1)"; break; }
done
[ -e "/var/lib/systemd/linger/$(id -un)" ] && echo "linger 1"
command -v timedatectl >/dev/null 2>&1 &&
  echo "synchronised $(limit timedatectl show --property=NTPSynchronized --value 2>/dev/null)"
kind=$(first "$root/run/service")
case $kind in
  systemd-user) echo "enabled $(limit systemctl --user is-enabled edgebit-daemon.service 2>&1 | head -n 1)" ;;
  systemd-system) echo "enabled $(limit systemctl is-enabled edgebit-daemon.service 2>&1 | head -n 1)" ;;
esac
run=$root/active/bin/edgebit-run
[ -x "$run" ] && echo "isa $(limit "$run" --isa 2>&1 | head -n 1)"
ask='import importlib.metadata as found; print(found.version("onnxruntime"))'
command -v python3 >/dev/null 2>&1 && echo "onnxruntime $(limit python3 -c "$ask" 2>/dev/null)"
for log in "$root/run/edgebitd.log" "$root/run/edgebitd.log.1"; do
  [ -f "$log" ] && echo "log_bytes $(wc -c <"$log")"
done
echo "end 1"
"""


@dataclass(frozen=True, slots=True)
class Zone:
    """A thermal zone."""

    kind: str
    celsius: float
    slows_at: float | None  # from where the kernel slows the cores; None: it does not say


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What the device said; what it did not say is at its default."""

    now: int | None = None  # its clock, seconds since 1970
    model: str = ""  # of the device tree: "Raspberry Pi 5 Model B Rev 1.0"
    libc: str = ""  # "ldd (Debian GLIBC 2.36-9) 2.36", "musl libc (aarch64)", "Android 15"
    isa: str = ""  # what the active bundle's engine says it takes: "dotprod (of: scalar neon dotprod i8mm)"
    features: frozenset[str] = frozenset()  # of /proc/cpuinfo
    swap_bytes: int = 0
    swap_used_bytes: int = 0
    zones: tuple[Zone, ...] = ()
    cooling: bool | None = None  # whether the kernel slows the cores now
    governor: str = ""
    throttled: int | None = None  # the firmware's bits
    throttled_why: str = ""  # what vcgencmd said where it gave none
    linger: bool = False
    synchronised: bool | None = None
    enabled: str = ""  # what systemctl says of the daemon's unit
    onnxruntime: str = ""  # its version, for the daemon's [engine] engine = "onnx"
    log_bytes: int = 0


def ask_facts(transport: Transport) -> Facts:
    """Ask the device. Raises TransportError where it has no shell that understands."""
    done = transport.run(["sh", "-c", _SCRIPT, "sh", transport.root], timeout_s=TIMEOUT_S)
    if done.code or not done.stdout.endswith("end 1\n"):
        said = (done.stderr or done.stdout).strip()[-300:]
        raise TransportError(f"{transport.url} did not answer the doctor's questions: {said or f'code {done.code}'}")
    return parse_facts(done.stdout)


def parse_facts(text: str) -> Facts:
    """The facts in the script's output."""
    last: dict[str, str] = {}
    zones, cooling, log_bytes = [], [], 0
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        value = value.strip()
        last[key] = value
        if key == "zone":
            zones.append(_zone(value))
        elif key == "cooling" and value.isdigit():
            cooling.append(int(value) > 0)
        elif key == "log_bytes":
            log_bytes += _number(value) or 0
    swap = (_number(last.get("swap_kib", "")) or 0) * 1024
    swap_free = (_number(last.get("swap_free_kib", "")) or 0) * 1024
    throttled = last.get("throttled", "")
    return Facts(
        now=_number(last.get("now", "")),
        model=last.get("model", ""),
        libc=last.get("libc", ""),
        isa=last.get("isa", ""),
        features=frozenset(last.get("features", "").partition(":")[2].split()),
        swap_bytes=swap,
        swap_used_bytes=max(0, swap - swap_free),
        zones=tuple(zone for zone in zones if zone is not None),
        cooling=any(cooling) if cooling else None,
        governor=last.get("governor", ""),
        throttled=_bits(throttled),
        throttled_why=throttled if _bits(throttled) is None else "",
        linger="linger" in last,
        synchronised={"yes": True, "no": False}.get(last.get("synchronised", "")),
        enabled=last.get("enabled", ""),
        onnxruntime=last.get("onnxruntime", ""),
        log_bytes=log_bytes,
    )


def _zone(text: str) -> Zone | None:
    """The kernel gives thousandths of a degree."""
    kind, *numbers = text.split(" ")
    values = [float(number) / 1000 for number in numbers if number.lstrip("-").isdigit()]
    if not values:
        return None
    return Zone(kind, values[0], values[1] if len(values) > 1 and values[1] > 0 else None)


def _bits(text: str) -> int | None:
    """Of "throttled=0x50000"."""
    name, _, value = text.partition("=")
    try:
        return int(value, 16) if name == "throttled" else None
    except ValueError:
        return None


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None
