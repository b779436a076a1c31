"""The algorithms; each module is what that algorithm changes."""
