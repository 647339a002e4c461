"""The program `knowhue`, installed or as `python -m knowhue`: stopped while it still loads, it says so, too."""

import signal
import sys
from typing import NoReturn


def load_and_run() -> NoReturn:
    """Load the command line, which takes a moment, and run it."""
    try:
        try:
            from knowhue.apps.program import main

            main()
        finally:
            # all is said but a line: a second Ctrl-C ends the process as the system does, without exit hooks
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:  # before `main` looks out for it, or a second one while it says so
        print("\nknowhue: stopped.", file=sys.stderr)
        sys.exit(130)  # as shells give it for SIGINT


if __name__ == "__main__":
    load_and_run()
