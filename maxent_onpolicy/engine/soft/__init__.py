"""The packed engine of soft actor-critic: flat vectors and hand-derived gradients."""
