"""`python -m reports.miniature.tied ARGUMENTS`: the command `rice` in a process that dies with its parent."""

import sys

from probes.sweeps.lifeline import tie_to_parent
from rice.cli import main

if __name__ == "__main__":
    tie_to_parent()
    main(sys.argv[1:])
