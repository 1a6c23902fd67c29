"""Compiled kernels: a module for each instruction set, all with the same names;
`_backend` picks one.
"""
