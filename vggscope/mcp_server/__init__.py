"""The functions of `api` as tools of an assistant, by the Model Context Protocol: `vggscope mcp`.

`tools.py` has the table of tools and answers a call; it knows no protocol. `server.py` speaks the protocol, with the
official SDK.
"""
