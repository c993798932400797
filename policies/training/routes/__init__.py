"""Learning from routes: what every route of the training questions brings, and the policy for it.

    tree ──axes──> what a question looks like ──induction──> a teacher ──learner──> the network

PPO goes on from there. This room knows nothing of stable-baselines3.
"""
