"""The clauses that implementations must meet, and the level of each."""

from braintools_adadelta.spec import CLAUSES as SPEC
from braintools_adadelta.spec import Clause

LEVELS = {
    "equations": "decides for everyone",
    "options": "decides where an implementation says that it offers them",
    "range": "extreme input: reported for everyone, decides for braintools_adadelta",
    "braintools": "decides for classes with the interface of braintools.optim.Adadelta",
}
OBJECTS = {
    "B1": Clause(
        "register",
        "States from dicts, nested dicts and modules; what is known keeps its accumulators",
        "observed",
        "braintools",
    ),
    "B2": Clause(
        "update",
        "update(grads) and step(grads) are one step and return None; further keys are ignored",
        "observed",
        "braintools",
    ),
    "B3": Clause(
        "current_lr", "reading it gives the lr in force, setting it changes the next step", "observed", "braintools"
    ),
    "B4": Clause(
        "groups",
        "an added group is stepped by Adadelta, with its own lr and one norm over all groups",
        "observed",
        "braintools",
    ),
    "B5": Clause(
        "resume",
        "a state_dict loaded into a new optimizer goes on exactly where it was taken",
        "observed",
        "braintools",
    ),
    "B6": Clause("jit", "the same step inside brainstate.transform.jit and for_loop", "observed", "braintools"),
    "B7": Clause(
        "schedules",
        "an LRScheduler moves by its step(); a callable is read at the step count, first at 0",
        "observed",
        "braintools",
    ),
    "B8": Clause("trainer", "braintools.trainer.Trainer fits a model with it", "observed", "braintools"),
    "B9": Clause("snapshots", "what state_dict() returned is not changed by later steps", "observed", "braintools"),
}
KIT = {
    "S4": Clause(
        "shapes", "parameters without axes, and empty ones, beside others and with every option", "ours", "equations"
    ),
    "X3": Clause("complex", "a complex parameter is two real ones; conjugated gradients count too", "ours", "options"),
}
CLAUSES = {k: v for k, v in SPEC.items() if v.level in LEVELS} | KIT | OBJECTS
