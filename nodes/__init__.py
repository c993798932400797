"""The nodes of the graph: the hub, the experts and what passes between them."""
