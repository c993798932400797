"""The agent that routes: serving, training, baselines, evaluation."""
