"""`vggscope mcp`."""

from __future__ import annotations

import os
from typing import Annotated

from vggscope.cli.options import flag, option
from vggscope.errors import OptionError
from vggscope.mcp_server.server import serve
from vggscope.mcp_server.tools import Permissions


def mcp(
    allow_code: Annotated[
        bool, flag("--allow-code", "Run Python code that the assistant names, such as net.py:Net, with your rights.")
    ] = False,
    folder: Annotated[
        str | None, option("FOLDER", "Where the assistant may write pictures; nowhere if left out.", "paths")
    ] = None,
) -> None:
    """Offer vggscope to an assistant, by the Model Context Protocol over stdin and stdout.

    The assistant's program starts this command, whose tools are summary, diff, memory, receptive_fields, inspect,
    compare, explain, diagram and catalogue.

    Example: vggscope mcp

    Example: vggscope mcp --folder pictures --allow-code
    """
    if folder is not None and not os.path.isdir(folder):
        raise OptionError(f"{folder} is no folder", "--folder names one that is there")
    serve(Permissions(allow_code, folder))
