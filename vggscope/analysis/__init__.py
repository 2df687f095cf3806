"""Pure functions of a Network: what it costs, what it holds, what it sees. `report` gathers them."""
