"""Living beside braintools without importing it: the only module of the optimizer that names it."""

import copy
import sys

import brainstate
import jax


def adopt(cls):
    """Make `cls` a virtual subclass of braintools' optimizers, if braintools is loaded.

    Its schedulers and its trainer ask ``isinstance(optimizer, OptaxOptimizer)``; nothing else of that class is needed.
    """
    base = getattr(sys.modules.get("braintools.optim"), "OptaxOptimizer", None)
    if base is not None and not issubclass(cls, base):
        base.register(cls)


class VirtualOptaxOptimizer:
    """Adopted when ``isinstance`` asks, so that braintools may be imported at any time."""

    @property
    def __class__(self):
        adopt(type(self))
        return type(self)


def is_frozen(param_states, caller):
    """Say whether a trainer of braintools, in the frame `caller`, registers nothing, as it has warned that it would.

    It does so for a model that is frozen as a whole. From anybody else nothing to train is a mistake.
    """
    return (
        isinstance(param_states, dict)
        and not param_states
        and caller.f_globals.get("__name__", "").startswith("braintools.trainer")
    )


def is_restored(scheduler, caller):
    """Say whether a trainer of braintools, in the frame `caller`, restores `scheduler` itself, after the optimizer.

    It has done so since 0.4.0; where it has no state for it, it steps the new scheduler once for each epoch.
    """
    trainer = caller.f_locals.get("self")
    return hasattr(trainer, "_restore_schedulers") and any(scheduler is one for one in trainer.schedulers)


def transformation(optimizer):
    """Return `optimizer` as an ``optax.GradientTransformation`` over real arrays, with options and lr as they are now.

    It is what braintools' Fitter minimises with, in the place of the optimizer that it was given.
    """
    import optax

    from .transform import Accumulators, start, step

    options, lr = optimizer.options, optimizer.current_lr

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("no params: call update(updates, state, params), since decay and lr need the parameters.")
        after = step(params, updates, state, lr, options)
        moved = jax.tree.map(lambda delta: (lr * delta).astype(delta.dtype), after.delta)
        return moved, Accumulators(after.e_g2, after.e_delta2)

    return optax.GradientTransformation(start, update)


def is_known(scheduler):
    """Say whether the class of `scheduler` is one of ours or of braintools', and not a user's."""
    return type(scheduler).__module__.split(".")[0] in ("braintools", "braintools_adadelta")


def load(scheduler, state):
    """Let `scheduler` load `state`. If it fails, it is what it was."""
    before = scheduler.state_dict()
    try:
        scheduler.load_state_dict(state)
    except Exception:
        scheduler.load_state_dict(before)
        raise


def with_parts(scheduler):
    """Return `scheduler` and the schedulers that it is made of."""
    return [scheduler, *(one for part in getattr(scheduler, "schedulers", ()) for one in with_parts(part))]


def states_in(scheduler):
    """Return all States in `scheduler`."""
    return [x for one in with_parts(scheduler) for x in vars(one).values() if isinstance(x, brainstate.State)]


def check_unattached(scheduler):
    """Refuse a scheduler that has an optimizer: it would leave the first one with an lr that no longer moves."""
    if getattr(scheduler, "optimizer", None) is not None:
        raise ValueError(
            f"this {type(scheduler).__name__} is that of another optimizer, and has an lr for each of its groups: make one"
            " for each optimizer, and step() both."
        )


def start_as_arrays(scheduler):
    """Give ReduceLROnPlateau its numbers in the type that its ``step()`` gives them, so that nothing is compiled anew."""
    from .states import as_array

    for one in with_parts(scheduler):
        if hasattr(one, "num_bad_epochs"):
            one.best.value = as_array(one.best.value)
            one.current_lrs.value = [as_array(lr) for lr in one.current_lrs.value]


def check_scheduler(scheduler):
    """Refuse what SequentialLR does under a trace.

    It looks up its schedule with ``int(index)``, swallows the error that a traced index gives, and hands on a stale lr.
    """
    if any(isinstance(getattr(one, "current_scheduler_idx", None), jax.core.Tracer) for one in with_parts(scheduler)):
        raise TypeError(
            "SequentialLR cannot be stepped inside jit, for_loop or scan: it finds its current schedule with int(), which"
            " needs a number and not a tracer, and the lr would silently stay as it was. Call its step() outside, or"
            " pass a function of the step count, such as optax.join_schedules, as lr."
        )


def append_lr(optimizer, index, lr):
    """Let the scheduler of `optimizer` follow one more group, number `index`, and return the lr of that group.

    A scheduler of braintools has a base lr for each group, and scales all else with it. A number is the base lr of the
    group, or its max lr where the scheduler has one; a scheduler of fixed values knows only one group.
    """
    from . import spec

    scheduler = optimizer.lr_scheduler
    if hasattr(scheduler, "append"):
        scheduler.append(lr, optimizer.step_count.value)
        return scheduler.in_force(index)
    if callable(lr) or hasattr(lr, "attach_optimizer"):
        raise TypeError(
            f"lr = {lr!r} is not allowed beside {type(scheduler).__name__}: pass a number, from which that scheduler"
            " starts, or give the scheduler a list of base_lr."
        )
    if lr is not None and (fixed := [one for one in with_parts(scheduler) if hasattr(one, "boundaries")]):
        raise ValueError(
            f"lr = {lr!r} is not allowed beside {type(fixed[0]).__name__}: its values are the lr of every group. Take"
            " MultiStepLR, which multiplies the lr of each, or give the optimizer a function of the step count as lr."
        )
    first = next(one for one in with_parts(scheduler) if not getattr(one, "schedulers", ()))
    peaks = lr is not None and hasattr(first, "max_lrs")
    given = scheduler.base_lrs[index] if lr is None and index < len(scheduler.base_lrs) else lr
    base = spec.check("lr", optimizer.base_lr if given is None else given)
    measure = float(first.max_lrs[0] if peaks else scheduler.base_lrs[0])
    ratio = base / measure if measure else 1.0
    before = [(one, copy.deepcopy(lists_of(one)), one.current_lrs.value) for one in with_parts(scheduler)]
    try:
        return extend(scheduler, index, base, ratio, keep=lr is None, peaks=peaks)
    except ZeroDivisionError:
        for one, lists, lrs in before:
            vars(one).update(lists)
            one.current_lrs.value = lrs
        raise ValueError(
            f"lr = {lr!r} is not allowed beside {type(scheduler).__name__}, which divides by it: take a positive number,"
            " or set the lr of the group to 0 between two steps."
        ) from None


def lists_of(scheduler):
    """Return the lists of `scheduler` that have an lr for each group, by name."""
    names = ("base_lrs", "max_lrs", "min_lrs") if hasattr(scheduler, "max_lrs") else ("base_lrs",)
    return {name: getattr(scheduler, name) for name in names if hasattr(scheduler, name)}


def extend(scheduler, index, base, ratio, *, keep, peaks):
    """Give `scheduler` and its parts a group number `index`, and return its lr; with `keep`, what they have for it stays."""
    for one in with_parts(scheduler):
        for values in lists_of(one).values():
            values += [values[0] * ratio] * (index + 1 - len(values))
            values[index] = values[index] if keep else values[0] * ratio
    if not peaks:
        scheduler.base_lrs[index] = base
    for one in reversed(with_parts(scheduler)):  # the parts first: the whole asks them
        now, lrs = list(one.current_lrs.value), list(one.get_lr())
        now += [lrs[index] if index < len(lrs) else one.base_lrs[index]] * (index + 1 - len(now))
        now[index] = lrs[index] if index < len(lrs) else now[index]
        one.current_lrs.value = now
    return now[index]


def accumulators(opt_state):
    """Return the accumulators in a saved state, ours or that of braintools, as {"e_g2": ..., "e_delta2": ...}.

    Braintools saves a chain: an empty state for each clip and for the decay, the accumulators, and a count.
    """
    if not isinstance(opt_state, dict) or not all(isinstance(part, dict) for part in opt_state.values()):
        return opt_state
    parts = [part for part in opt_state.values() if part != {} and set(part) != {"count"}]
    if "e_g2" in opt_state:
        return opt_state
    if len(parts) == 1 and set(parts[0]) == {"e_g", "e_x"}:
        return {"e_g2": parts[0]["e_g"], "e_delta2": parts[0]["e_x"]}
    if others := sorted({"mu", "nu", "trace"} & {key for part in parts for key in part}):
        raise ValueError(
            f"the state is not allowed: it has {others}, and no accumulators of Adadelta (e_g and e_x, or e_g2 and"
            " e_delta2), so another optimizer has written it."
        )
    return opt_state
