"""The clauses of the objects: classes with the interface of braintools.optim.Adadelta."""
