from vggscope.graph import *  # noqa: F403
from vggscope.graph import INPUT, Network, Node, Parameter, module_node  # noqa: F401
