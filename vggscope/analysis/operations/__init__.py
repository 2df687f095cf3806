"""The operations and bytes of each layer, forward and backward, and the least time on a card."""
