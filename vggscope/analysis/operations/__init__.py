"""What each layer computes and moves, forward and backward: MACs, FLOPs, bytes, and how fast a card can be with it.

`counting` has the formulas of what is no multiply-accumulate, `roofline` the cards' speeds, `result` puts all together.
"""
