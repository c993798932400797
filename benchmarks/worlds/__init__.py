"""Worlds whose best policy is known: a benchmark of what the agent learns."""
