"""Training in several processes: the process group, collectives with gradients, and synchronised batch norm."""
