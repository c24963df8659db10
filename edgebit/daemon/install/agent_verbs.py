"""The agent's verbs and their arguments, as a command line."""

import argparse
from pathlib import Path


def verb_parser() -> argparse.ArgumentParser:
    """The verbs and their arguments."""
    top = argparse.ArgumentParser(prog="edgebitd.pyz agent", description="The device's side of edgebit deploy.")
    top.add_argument("--root", required=True, type=Path)
    verbs = top.add_subparsers(dest="verb", required=True)
    for verb in (
        "missing",
        "configure",
        "restore",
        "stop",
        "withdraw",
        "rollback",
        "starting",
        "supervise",
        "status",
        "sensors",
    ):
        verbs.add_parser(verb)
    stage = verbs.add_parser("stage")
    stage.add_argument("--force", action="store_true")
    for judging in (stage, verbs.add_parser("judge")):
        judging.add_argument("--key", action="append", default=[], help="trusted where the device trusts none yet")
    verbs.add_parser("selftest").add_argument("id")
    verbs.add_parser("golden").add_argument("folder")
    for verb in ("start", "detect"):
        verbs.add_parser(verb).add_argument("--service", choices=("auto", "systemd", "supervisor"), default="auto")
    verbs.add_parser("switch").add_argument("id")
    commit = verbs.add_parser("commit")
    commit.add_argument("id")
    commit.add_argument("--keep-store", action="store_true")
    check = verbs.add_parser("check")
    check.add_argument("--timeout-s", type=float, default=120.0)
    for limit in ("--stay-up-s", "--min-tok-s", "--rss-max-mib"):
        check.add_argument(limit, type=float, default=0.0)
    gate = verbs.add_parser("gate")
    gate.add_argument("id")
    gate.add_argument("guarded", type=int)
    gate.add_argument("--timeout-s", type=float, default=120.0, help="for the answer")
    gate.add_argument("--delay-s", type=float, default=15.0, help="a deploy that is still there asks first")
    gate.add_argument("--again-s", type=float, default=30.0, help="to the next look, where nothing was decided")
    verbs.add_parser("fail").add_argument("reason")
    logs = verbs.add_parser("logs")
    logs.add_argument("--lines", type=int, default=100)
    logs.add_argument("--after", type=int)
    verbs.add_parser("security").add_argument("--lines", type=int, default=100)
    install = verbs.add_parser("install", help="install a bundle file that is on this device")
    install.add_argument("bundle", type=Path)
    install.add_argument("--mqtt", default="", metavar="URL", help="the broker, needed once")
    install.add_argument("--device-name", default="", help="the name in topics (default: the host's)")
    install.add_argument("--service", choices=("auto", "systemd", "supervisor"), default="", help="default: as before")
    install.add_argument("--force", action="store_true", help="also one that is there, or was taken back")
    install.add_argument(
        "--on-trial", action="store_true", help="do not keep it yet: `commit ID` or `retract ID` follow"
    )
    install.add_argument("--name", default="", help="refuse a bundle that is called otherwise")
    install.add_argument("--id", default="", help="refuse a bundle with another id")
    install.add_argument("--key", action="append", default=[], help="refuse what this public key did not sign")
    retract = verbs.add_parser("retract", help="undo an installation, on trial or kept")
    retract.add_argument("id")
    for asking in (install, retract):
        asking.add_argument("--timeout-s", type=float, default=120.0)
    verbs.add_parser("uninstall").add_argument("--keep-config", action="store_true")
    return top
