"""Code for a process that measures by how much work raises its own peak memory."""

HIGHEST = """
def highest():
    # Not ru_maxrss, which begins with what the process had that started this one.
    with open("/proc/self/status") as status:
        return int(status.read().split("VmHWM:")[1].split()[0])
"""
"""Defines `highest()`: the highest memory of the process so far, in KiB. Linux alone has it."""

RESOLVING = f"""{HIGHEST}
import json, sys
from vggscope.errors import VggscopeError
from vggscope.sources.resolve import resolve

before = highest()
for path in json.load(sys.stdin):
    try:
        resolve(path)
    except VggscopeError:
        pass
print(highest() - before)
"""
"""Prints by how many KiB the models whose paths are on standard input raise the highest memory of a process."""
