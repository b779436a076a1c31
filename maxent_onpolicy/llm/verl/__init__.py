"""Entropy advantage without a critic as a policy loss of verl; needs ``pip install 'maxent-onpolicy[llm-verl]'``."""
