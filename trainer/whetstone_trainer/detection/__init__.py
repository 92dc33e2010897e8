"""Object detection: the network, its training targets and losses, its augmentation, and what is made of its outputs."""
