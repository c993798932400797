"""What is known of experts before they serve: sizes in their names, and answers to probe questions.

`probe` asks, a `Probed` is what came of it, as a file too. This room knows nothing of plans.
"""
