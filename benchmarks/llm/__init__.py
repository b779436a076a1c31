"""What entropy control adds to the time and the memory of training a language model."""
