"""The options of the clause tests, which pytest must know before it finds them. Nothing else is loaded."""


def pytest_addoption(parser):
    group = parser.getgroup("adadelta", "judge implementations of Adadelta")
    add = group.addoption
    add("--implementation", action="append", metavar="NAME", help="a known name, module:Object or file.py:Object")
    add("--adadelta-clause", action="append", metavar="ID", help="judge by this clause only (repeatable)")
    add(
        "--adadelta-level",
        action="append",
        metavar="LEVEL",
        help="judge by the clauses of this level only (repeatable)",
    )
    add("--adadelta-examples", type=int, default=3, metavar="N", help="random runs for each test (default 3)")
    add("--adadelta-seed", type=int, default=0, metavar="N", help="where the random runs begin (default 0)")
    add("--adadelta-first", action="store_true", help="judge an implementation no further once it has failed")
