"""The demo pool, its agent and questions, and `der demo`, which shows them at work."""
