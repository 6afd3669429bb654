"""The benchmark: this Adadelta, those of others and the limit of the machine take turns. Run it with ``adadelta-bench``.

``measure`` starts one process for each library (``worker``) and says whose turn it is; ``contenders`` are the ways to
take a step, ``networks`` whole training steps; ``report`` makes the page. Nothing of it is imported by the optimizer.
"""
