"""`python -m edgebit` is the `edgebit` command."""

from edgebit.cli import main

if __name__ == "__main__":
    main()
