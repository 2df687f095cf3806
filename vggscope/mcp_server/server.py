"""The tools of an assistant over the Model Context Protocol, by stdin and stdout, with the official SDK.

The protocol has a thread of its own, which answers while a tool computes. Tools run on the main thread, one after the
other: what they call may change the process, as a redirected stdout does, and signals end them as they end a command.
Stdout carries the protocol alone: the SDK keeps a copy of it and sends what else is printed to stderr.
"""

from __future__ import annotations

import base64
from asyncio import wrap_future
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from vggscope._version import __version__
from vggscope.errors import MissingTool
from vggscope.mcp_server.tools import INSTRUCTIONS, TOOLS, Permissions, ToolAnswer, answer
from vggscope.record import record

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server
    from mcp_types import CallToolResult, ListToolsResult

WAIT = 0.5
"""Seconds between looks for a signal: on Windows, waiting without a limit would hold signals back."""


@record
class ToolCall:
    """A call of a tool, and where its answer goes."""

    name: str
    arguments: Mapping[str, Any]
    answer: Future[ToolAnswer]


Calls = SimpleQueue["ToolCall | None"]
"""The calls that wait; None at the end of the connection."""


def serve(permissions: Permissions) -> None:
    """Answer calls until stdin ends, or nobody reads stdout any more.

    Raises MissingTool without the SDK, and any other error that ended the connection.
    """
    try:
        import mcp.server.stdio  # noqa: F401
        import mcp_types  # noqa: F401 - older versions have no such package
    except ModuleNotFoundError:
        raise MissingTool("vggscope mcp needs mcp 2, the SDK of the protocol", "pip install 'vggscope[mcp]'") from None
    calls: Calls = SimpleQueue()
    ended: list[BaseException] = []
    Thread(target=partial(_speak, calls, ended), daemon=True).start()
    while (call := _next(calls)) is not None:
        if call.answer.set_running_or_notify_cancel():  # else the assistant no longer waits for it
            call.answer.set_result(answer(call.name, call.arguments, permissions))
    if ended and not _is_broken_pipe(ended[0]):
        raise ended[0]


def _is_broken_pipe(error: BaseException) -> bool:
    """Whether an error, or each error of a group, is that nobody reads what was written."""
    errors = getattr(error, "exceptions", None)
    return isinstance(error, BrokenPipeError) if errors is None else all(map(_is_broken_pipe, errors))


def _next(calls: Calls) -> ToolCall | None:
    while True:
        try:
            return calls.get(timeout=WAIT)
        except Empty:
            continue


def _speak(calls: Calls, ended: list[BaseException]) -> None:
    """Speak the protocol until stdin ends: the body of the other thread."""
    import anyio

    try:
        anyio.run(_connect, calls)
    except BaseException as error:  # it is raised again by `serve`
        ended.append(error)
    finally:
        calls.put(None)


async def _connect(calls: Calls) -> None:
    from mcp.server.stdio import stdio_server

    server = _server(calls)
    async with stdio_server() as (reading, writing):
        await server.run(reading, writing, server.create_initialization_options())


def _server(calls: Calls) -> Server[Any]:
    from mcp.server.lowlevel import Server

    async def list_tools(_context: Any, _params: Any) -> ListToolsResult:
        return _tool_list()

    async def call_tool(_context: Any, params: Any) -> CallToolResult:
        call = ToolCall(params.name, params.arguments or {}, Future())
        calls.put(call)
        return _call_result(await wrap_future(call.answer))

    return Server(
        "vggscope",
        version=__version__,
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _tool_list() -> ListToolsResult:
    from mcp_types import ListToolsResult, Tool, ToolAnnotations

    return ListToolsResult(
        tools=[
            Tool(
                name=tool.name,
                title=tool.title,
                description=tool.about,
                input_schema=tool.input_schema,
                annotations=ToolAnnotations(
                    read_only_hint="file" not in tool.arguments, idempotent_hint=True, open_world_hint=False
                ),
            )
            for tool in TOOLS
        ]
    )


def _call_result(answer: ToolAnswer) -> CallToolResult:
    from mcp_types import CallToolResult, ImageContent, TextContent

    content: list[Any] = [TextContent(type="text", text=answer.text)] if answer.text else []
    if answer.png is not None:
        content.append(ImageContent(type="image", data=base64.b64encode(answer.png).decode(), mime_type="image/png"))
    return CallToolResult(content=content, structured_content=answer.document, is_error=answer.is_error)
