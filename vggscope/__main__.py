"""`python -m vggscope`."""

import os
import sys

if sys.path[0] == os.getcwd():
    # As for the command `vggscope`: no queue.py or torch.py in the current folder may hide a package.
    del sys.path[0]

from vggscope.cli.app import main

if __name__ == "__main__":
    main()
