"""`python -m knowhue`: the command line, as `torch.distributed.run` starts it."""

from knowhue.apps.program import main

main()
