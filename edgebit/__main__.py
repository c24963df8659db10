"""The `edgebit` command, also as `python -m edgebit`."""

import sys


def main() -> None:
    """Run the command line. Ctrl-C is met from here on: loading it takes tenths of a second on a small machine."""
    try:
        from edgebit.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")  # as click has it: behind the ^C of a terminal
        sys.exit(130)


if __name__ == "__main__":
    main()
