"""The rollout buffer, rollout collection and minibatches, shared by every on-policy algorithm."""
