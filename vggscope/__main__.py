"""`python -m vggscope`."""

from vggscope.cli.app import main

if __name__ == "__main__":
    main()
