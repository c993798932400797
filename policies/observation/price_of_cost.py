"""Prices of cost: how much quality is given up for the cost of asking everyone once."""

PRICE = 0.2
"""The price where neither a request nor a training names one."""

PRICE_RANGE = (0.02, 2.0)
"""The prices that agents are trained for, are swept and are offered."""
