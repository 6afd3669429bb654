"""The options of the clause tests. pytest must know them early, so nothing else is imported here."""


def pytest_addoption(parser):
    group = parser.getgroup("adadelta", "judge implementations of Adadelta")
    add = group.addoption
    add(
        "--adadelta-implementation",
        action="append",
        metavar="NAME",
        help="a known name, module:Object, file.py:Object or run:COMMAND (repeatable)",
    )
    add("--adadelta-clause", action="append", metavar="ID", help="judge by this clause only (repeatable)")
    add(
        "--adadelta-level",
        action="append",
        metavar="LEVEL",
        help="judge by the clauses of this level only (repeatable)",
    )
    add("--adadelta-examples", type=int, default=3, metavar="N", help="random runs for each test (default 3)")
    add("--adadelta-seed", type=int, default=0, metavar="N", help="seed of the random runs (default 0)")
    add("--adadelta-ledger", metavar="FILE", help="a ledger of known deviations for the implementation")
    add("--adadelta-skip", type=int, default=0, metavar="N", help="leave out the first N tests")
    add("--adadelta-first", action="store_true", help="stop judging an implementation after its first failure")
