"""`python -m reports.miniature.tied ARGUMENTS`: the command `rice` in a process that dies with its parent.

All that it says goes to standard error, where the parent keeps a log: nobody reads the pipe of its standard output.
"""

import os
import sys

from probes.sweeps.lifeline import tie_to_parent
from rice.cli import main

if __name__ == "__main__":
    tie_to_parent()
    os.dup2(2, 1)
    main(sys.argv[1:])
