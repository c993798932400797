"""Memories of bounded size."""

from der_graph.policies.observation.last_used import LastUsed


def test_what_was_used_longest_ago_is_forgotten() -> None:
    memory = LastUsed[str, int](2)
    memory.remember({"a": 1, "b": 2})
    assert memory.known(["a", "z", "a"]) == {"a": 1}
    memory.remember({"c": 3})
    assert list(memory) == ["a", "c"]
    # What one call brings may be more than fits.
    memory.remember({"d": 4, "e": 5, "f": 6})
    assert list(memory) == ["e", "f"]
