"""The packed tier: MLP actor-critics as one flat vector, with hand-derived gradients and no compiler."""
