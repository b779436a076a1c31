"""Actor-critic policies with the entropy head, and the action distributions."""
