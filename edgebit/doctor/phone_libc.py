"""A phone's own loader and libc, copied from it, and a bundle run on them here before it goes there."""

from pathlib import Path

from edgebit import bionic
from edgebit.bionic_pull import check_bundle_on_phone_libc, pull_bionic
from edgebit.cross.toolchain import cache_dir
from edgebit.doctor.finding import Finding, State, of_error
from edgebit.errors import EdgebitError
from edgebit.transport import Options, open_transport

GROUP = "the phone's libc, here"

_STATES: dict[str, State] = {"passed": "ok", "failed": "fail", "not run": "unknown"}


def check_phone_libc(url: str, options: Options, bundle: Path | None) -> list[Finding]:
    """Copy loader and libc of the phone at `url`, and run the probes of `bundle` on them. Nothing is raised."""
    try:
        with open_transport(url, options) as device:
            phone = pull_bionic(device, cache_dir())
        mend = "" if bundle else f"run a bundle on it: --bundle FILE; or build with {bionic.ROOT_VARIABLE}={phone.root}"
        where = f"API level {phone.api_level}, {phone.build}, in {phone.root}"
        findings = [Finding(GROUP, "loader and libc", "ok", where, mend)]
        checks = check_bundle_on_phone_libc(phone, bundle) if bundle else []
    except EdgebitError as error:
        return [of_error(GROUP, "loader and libc", error)]
    return [*findings, *(Finding(GROUP, check.name, _STATES[check.status], check.detail) for check in checks)]
