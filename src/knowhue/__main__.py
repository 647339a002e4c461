"""Entry point of `knowhue` and `python -m knowhue`; Ctrl-C is answered even while modules are still being imported."""

import signal
import sys
from typing import NoReturn


def load_and_run() -> NoReturn:
    """Import the command line, which takes a moment, and run it."""
    try:
        try:
            from knowhue.apps.program import main

            main()
        finally:
            # only the last line is left to print: a second Ctrl-C kills the process at once, without exit hooks
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:  # before `main` handles it, or a second one while `main` reports the first
        print("\nknowhue: stopped.", file=sys.stderr)
        sys.exit(130)  # the exit status that shells report for SIGINT


if __name__ == "__main__":
    load_and_run()
