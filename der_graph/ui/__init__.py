"""The page of `der ui`: a conversation, its routes while they are built, limits as sliders.

`serve_page` runs it. This room shows what the graph does and knows nothing of how.
"""

from der_graph.ui.app import create_app, create_page, read_logins, serve_page

__all__ = ["create_app", "create_page", "read_logins", "serve_page"]
