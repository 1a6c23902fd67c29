"""Time and error next to other libraries: what ``python -m fastsoftmax bench`` and ``benchmarks/``
run.

Nothing else imports this subpackage. From the bottom up::

    formulas.py losses.py cases.py what is compared: the formulas in NumPy, and an operation on an
    array measuring.py seconds of a call, units in the last place of a result rivals.py how each
    library computes a case (also numba_loops.py, onnx_models.py) worker.py turns.py each library in
    a process of its own; they take turns rows.py machine.py figures of a case, and where they were
    measured report.py plot.py command.py tables, JSON, a picture; the command line
"""
