"""The whole ensemble as one LangChain chat model.

`ChatDER` is the model; behind it runs the same graph as everywhere. This room knows LangChain's runs and
messages; it decides nothing about routes.
"""

from der_graph.chat_model.chat_model import ChatDER

__all__ = ["ChatDER"]
