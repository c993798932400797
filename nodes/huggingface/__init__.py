"""Local models of transformers as chat models: weights, prompts, generation, decoding.

`HuggingFaceChat` is the way in; `Answerer` (generation) is what happens to a batch behind it. Nothing
heavy is imported before a model is loaded. This room knows nothing of graphs, routes or agents.
"""

from der_graph.nodes.huggingface.chat import HuggingFaceChat
from der_graph.nodes.huggingface.weights import Weights, find_weights, weights_folder

__all__ = ["HuggingFaceChat", "Weights", "find_weights", "weights_folder"]
