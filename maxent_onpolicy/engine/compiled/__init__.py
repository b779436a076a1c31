"""The compiled tier: any policy that traces, its whole minibatch step as one compiled program."""
