"""Pure functions of tensors: advantages, entropy, losses, normalisation."""
