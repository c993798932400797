"""What the agent sees: a situation becomes one row of numbers.

`Observer` writes the row; `features` names its columns, `belief` weighs answers that agree or differ,
`profiles` holds what is known of the experts. This room knows nothing of networks or training.
"""

from der_graph.policies.observation.encoder import (
    SentenceEncoder,
    TextEncoder,
    as_encoder,
    make_encoder,
)
from der_graph.policies.observation.features import Feature, FeatureNames
from der_graph.policies.observation.observer import ObservationConfig, Observer
from der_graph.policies.observation.vectors import CachedEncoder

__all__ = [
    "CachedEncoder",
    "Feature",
    "FeatureNames",
    "ObservationConfig",
    "Observer",
    "SentenceEncoder",
    "TextEncoder",
    "as_encoder",
    "make_encoder",
]
