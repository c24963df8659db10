"""edgebitd sensors: the readings of this device on a terminal, and the dialogue that calibrates power."""

import contextlib
import json
import sys
import time
from pathlib import Path

from edgebit.daemon.config.sections import Config
from edgebit.daemon.sensors.calibration import SECONDS, Said, listen, settings, uncalibrated
from edgebit.daemon.sensors.device_files import DeviceFiles
from edgebit.daemon.sensors.kinds import power_of, sampler_of
from edgebit.daemon.sensors.listing import table, take_all
from edgebit.daemon.sensors.power import Power
from edgebit.errors import SensorError

_CLEAR = "\x1b[H\x1b[J"


def show(config: Config, state_dir: Path, *, as_json: bool, again: bool) -> None:
    """Print all readings, with `again` until Ctrl-C."""
    sampler = sampler_of(files_of(config), config.sensors, config.power, state_dir)
    try:
        while True:
            readings = take_all(sampler)
            if as_json:
                print(json.dumps(readings), flush=True)
            else:
                print(_CLEAR if again and sys.stdout.isatty() else "", end="")
                print("\n".join(table(readings)), flush=True)
            if not again:
                return
            time.sleep(config.sensors.interval_s)
    finally:
        sampler.close()


def calibrate(config: Config, *, seconds: float = SECONDS) -> None:
    """Ask for what another meter says at rest and at work, and print the settings. Raises SensorError."""
    with contextlib.closing(power_of(files_of(config), uncalibrated(config.power), config.sensors.command_s)) as power:
        _say("1. Leave the device at rest, with nothing but its daemon. Your meter must be between supply and device.")
        idle, idle_true_w = _point(power, seconds)
        _say("2. Now make it work: edgebitd tune, or a long question; let it go on until the next figure is asked for.")
        busy, busy_true_w = _point(power, seconds)
    lines = settings(idle, idle_true_w, busy, busy_true_w)
    _say("Put this into [power] of edgebitd.toml, with `error`, how far off your meter may be (0.02 for 2 %):")
    print("\n".join(lines))


def files_of(config: Config) -> DeviceFiles:
    """The device's own, or those of a root for trying."""
    return DeviceFiles(Path(config.report.sensors_root))


def _point(power: Power, seconds: float) -> tuple[Said, float]:
    _ask(f"   Press Enter; then its power is read for {seconds:g} s. ")
    said = listen(power, seconds, wait=time.sleep)
    _say(f"   {said.source}: {said.watts:.3f} W, between {said.least_w:.3f} and {said.most_w:.3f}")
    if not said.is_steady:
        _say("   That swings by more than a tenth. Take your meter's mean of the same time, or begin anew.")
    while True:
        text = _ask("   What did your meter say, in W? ")
        with contextlib.suppress(ValueError):
            if 0 < (watts := float(text.replace(",", "."))) < 2000:
                return said, watts
        _say(f"   {text!r} are no watts; a number such as 4.31 is.")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _ask(question: str) -> str:
    """On standard error, so that standard output has the settings alone."""
    print(question, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise SensorError("the calibration was not finished: no more input. Call it on a terminal")
    return line.strip()
