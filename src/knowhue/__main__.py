"""The program `knowhue`, installed or as `python -m knowhue`: stopped while it still loads, it says so, too."""

import sys
from typing import NoReturn


def load_and_run() -> NoReturn:
    """Load the command line, which takes a moment, and run it."""
    try:
        from knowhue.apps.program import main

        main()
    except KeyboardInterrupt:  # before `main` looks out for it, so that nothing has begun
        print("\nknowhue: stopped.", file=sys.stderr)
        sys.exit(130)  # as shells give it for SIGINT


if __name__ == "__main__":
    load_and_run()
