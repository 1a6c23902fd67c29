"""Compiled kernels: one module per instruction set, all with the same names.  ``fastsoftmax._backend`` picks one."""
