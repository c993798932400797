"""Which experts there are: a pool file in, experts out.

`load_pool` reads a pool file (`file` says what may stand in it, `experts` makes the experts). This room
knows nothing of agents or graphs.
"""

from der_graph.pool.backends import Backend
from der_graph.pool.from_objects import as_pool
from der_graph.pool.pool import Pool, PoolSettings, check_pool, load_pool, pool_from

__all__ = ["Backend", "Pool", "PoolSettings", "as_pool", "check_pool", "load_pool", "pool_from"]
