"""edgebitd: `python3 edgebitd.pyz VERB`, or `python3 -m edgebit.daemon VERB`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from edgebit import __version__
from edgebit.errors import BundleError, ConfigError, EdgebitError


def parser() -> argparse.ArgumentParser:
    """The verbs. `agent` has its own, in agent.py."""
    top = argparse.ArgumentParser(prog="edgebitd", description="Answers requests over MQTT with a ternary model.")
    top.add_argument("--version", action="version", version=f"edgebitd {__version__}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    run = verbs.add_parser("run", help="be the daemon")
    place = run.add_mutually_exclusive_group(required=True)
    place.add_argument("--root", type=Path, help="device folder: active slot, edgebitd.toml, state")
    place.add_argument("--bundle", type=Path, help="a bundle, folder or file; goes with --config")
    run.add_argument("--config", type=Path, help="configuration (default: ROOT/edgebitd.toml)")
    run.add_argument("--state", type=Path, help="folder for what outlives a restart (default: ROOT/state)")
    run.add_argument("--device-name", help="name in topics, before the configuration's; made lower-case")
    run.add_argument("--check-config", action="store_true", help="read the configuration and its files, and end")
    run.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    tune = verbs.add_parser("tune", help="find the best settings of [engine] by short measurements, and write them")
    add_tune_arguments(tune)
    sensors = verbs.add_parser("sensors", help="print what the device's sensors say, or why they do not")
    add_sensors_arguments(sensors)
    add_metrics_arguments(verbs.add_parser("metrics", help="print the figures that the daemon has recorded"))
    asked = verbs.add_parser("ping", help="ask a daemon that runs whether it answers, over its own broker")
    asked.add_argument("--config", type=Path, required=True)
    asked.add_argument("--device-name")
    asked.add_argument("--timeout-s", type=float, default=15.0)
    verbs.add_parser("agent", help="the device's side of edgebit deploy", add_help=False)
    return top


def add_tune_arguments(tune: argparse.ArgumentParser) -> None:
    """What `tune` takes."""
    place = tune.add_mutually_exclusive_group(required=True)
    place.add_argument(
        "--root", type=Path, help="device folder: its active slot is measured, its edgebitd.toml written"
    )
    place.add_argument("--bundle", type=Path, help="a bundle or model file; without --config nothing is written")
    tune.add_argument("--config", type=Path, help="configuration to write (default: ROOT/edgebitd.toml)")
    tune.add_argument("--scenario", default="edge", help="mobile, edge (default), server, cloud")
    tune.add_argument("--threads-max", type=int, metavar="N", help="use no more threads")
    tune.add_argument("--memory-max", type=int, metavar="MIB", help="use no more memory")
    tune.add_argument("--seconds", type=float, default=40.0, help="how long to measure, about (default: 40)")
    tune.add_argument("--dry-run", action="store_true", help="write nothing")


def add_sensors_arguments(sensors: argparse.ArgumentParser) -> None:
    """What `sensors` takes."""
    place = sensors.add_mutually_exclusive_group(required=True)
    place.add_argument("--root", type=Path, help="device folder, whose edgebitd.toml says which sensors there are")
    place.add_argument("--config", type=Path, help="the configuration itself")
    how = sensors.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="again and again, until Ctrl-C")
    how.add_argument(
        "--calibrate", action="store_true", help="ask for two points of a meter, print settings of [power]"
    )
    sensors.add_argument("--json", action="store_true", help="print one JSON object a look")


def add_metrics_arguments(metrics: argparse.ArgumentParser) -> None:
    """What `metrics` takes."""
    metrics.add_argument(
        "what", choices=("show", "summary", "export"), help="the last figures, what a time came to, or rows"
    )
    metrics.add_argument("--root", type=Path, required=True, help="device folder, below which state/history lies")
    metrics.add_argument("--since-s", type=float, default=3600.0, metavar="S", help="how far back (default: 3600)")
    metrics.add_argument(
        "--step-s", type=float, default=60.0, metavar="S", help="of a row; 0: as recorded (default: 60)"
    )
    how = metrics.add_mutually_exclusive_group()
    for form, words in (("json", "JSON"), ("csv", "CSV, of export"), ("prometheus", "OpenMetrics, of export")):
        how.add_argument(f"--{form}", dest="form", action="store_const", const=form, help=f"print {words}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one verb; gives the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["agent"]:
        from edgebit.daemon.install import agent

        return agent.main(arguments[1:])
    options = parser().parse_args(arguments)
    try:
        verbs = {"run": run, "tune": run_tune, "ping": run_ping, "sensors": run_sensors, "metrics": run_metrics}
        return verbs[options.verb](options)
    except EdgebitError as error:
        print(f"edgebitd: {error}", file=sys.stderr)
        return error.exit_code


def run(options: argparse.Namespace) -> int:
    """Be the daemon. Raises EdgebitError where the configuration is wrong."""
    from edgebit.daemon.config.reader import read_config

    root: Path | None = options.root
    config_path: Path | None = options.config or (root and root / "edgebitd.toml")
    if config_path is None:
        raise ConfigError("--bundle goes with --config FILE")
    config = read_config(config_path).called(options.device_name)
    if options.check_config:
        from edgebit.daemon.start_check import check_start

        model: Path = options.bundle if root is None else root / "active"
        check_start(config, model if model.exists() else None)
        print(f"{config_path}: device {config.device_name}, broker {config.mqtt.url}")
        return 0

    from edgebit.daemon.app import Daemon, set_up_logging
    from edgebit.daemon.install.gate import start_gate
    from edgebit.daemon.serving.engine import LoadedModel

    set_up_logging(options.log_level)
    bundle: Path = options.bundle
    slot = ""
    if root is None and not bundle.exists():
        raise BundleError(f"--bundle {bundle}: no such file or folder")
    if root is not None:
        bundle = Path(os.path.realpath(root / "active"))  # the slot of now: a later switch must not change it under us
        slot = bundle.name
        start_gate(root)
    state: Path = options.state or (root or config_path.parent) / "state"
    return Daemon(config, state, lambda: LoadedModel.open(bundle, config.engine, state), slot=slot).run()


def run_ping(options: argparse.Namespace) -> int:
    """Ping the daemon of a configuration. Raises BrokerError, or NoAnswerError where it is silent."""
    from edgebit.daemon.config.reader import read_config
    from edgebit.daemon.install.health import ping

    config = read_config(options.config).called(options.device_name)
    print(f"bundle {ping(config, options.timeout_s)} answers as {config.device_name}")
    return 0


def run_tune(options: argparse.Namespace) -> int:
    """Measure, write, and say why. Raises EdgebitError."""
    from edgebit.daemon.tune import Limits, lines, tune_and_write

    root: Path | None = options.root
    config: Path | None = options.config or (root and root / "edgebitd.toml")
    model = Path(os.path.realpath(root / "active")) if root is not None else options.bundle
    limits = Limits(threads=options.threads_max, memory_mib=options.memory_max, seconds=options.seconds)
    outcome = tune_and_write(
        model,
        options.scenario,
        limits,
        config,
        write=not options.dry_run,
        progress=lambda text: print(f"measuring {text}", file=sys.stderr),
    )
    print("\n".join([*lines(outcome.tuning), "", outcome.said]))
    return 0


def run_sensors(options: argparse.Namespace) -> int:
    """Print readings, or find a calibration. Raises EdgebitError."""
    from edgebit.daemon.config.reader import read_config
    from edgebit.daemon.sensors import console

    if options.calibrate and options.json:
        raise ConfigError("--calibrate asks and prints lines of a configuration: leave --json out")
    path: Path = options.config or options.root / "edgebitd.toml"
    config = read_config(path)
    try:
        if options.calibrate:
            console.calibrate(config)
        else:
            console.show(config, (options.root or path.parent) / "state", as_json=options.json, again=options.watch)
    except KeyboardInterrupt:
        return 130
    return 0


def run_metrics(options: argparse.Namespace) -> int:
    """Print figures of the history on the disk. Raises EdgebitError."""
    from edgebit.daemon.monitoring import console

    folder: Path = options.root / "state" / "history"
    form: str | None = options.form
    if options.what == "export":
        console.export(folder, options.since_s, options.step_s, form or "csv")
        return 0
    if form not in (None, "json"):
        raise ConfigError(f"--{form} is of export: metrics export --{form}")
    if options.what == "show":
        console.show(folder, as_json=form == "json")
    else:
        console.summary(folder, options.since_s, as_json=form == "json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
