"""`python -m knowhue`: the command line, as `torch.distributed.run` starts it."""

from knowhue.apps.cli import main

main()
