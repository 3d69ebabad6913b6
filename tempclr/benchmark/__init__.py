"""How fast the alignment kernels are on this machine, beside other packages: ``tempclr bench``."""
