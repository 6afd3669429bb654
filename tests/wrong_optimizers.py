"""Classes with the interface of braintools.optim.Adadelta, each wrong as an object in one way that was shipped."""

import jax

from braintools_adadelta import Adadelta, LRScheduler
from braintools_adadelta.registry import ParamStates


class NotSaved(Adadelta):
    """apache/mxnet#1695: the accumulators are not in the checkpoint."""

    clause = "B5"

    def load_state_dict(self, state_dict):
        zeros = jax.tree.map(lambda x: 0 * x, state_dict["opt_state"])
        super().load_state_dict(state_dict | {"opt_state": zeros})


class CountNotSaved(Adadelta):
    """keras-team/keras#13027: the step count is not in the checkpoint."""

    clause = "B5"

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict | {"step_count": 0})


class Aliased(Adadelta):
    """pytorch/pytorch#196083: what state_dict returned is written to by later steps."""

    clause = "B9"

    def state_dict(self):
        self.shared = getattr(self, "shared", None) or super().state_dict()
        return self.shared

    def update(self, grads):
        super().update(grads)
        if hasattr(self, "shared"):
            self.shared.update(super().state_dict())


class Reregistered(Adadelta):
    """braintools 0.3.0: registering again starts anew."""

    clause = "B1"

    def register_trainable_weights(self, states):
        self.opt_state, self.param_states = None, ParamStates()
        return super().register_trainable_weights(states)


class ScheduleOffByOne(Adadelta):
    """google-deepmind/optax#415: the first step reads schedule(1)."""

    clause = "B7"

    def __init__(self, lr=1.0, *args, **kwargs):
        super().__init__((lambda count: lr(count + 1)) if callable(lr) else lr, *args, **kwargs)


class LrSetter(Adadelta):
    """braintools before 0.2.0: setting the lr changes only what is reported."""

    clause = "B3"

    @property
    def current_lr(self):
        return getattr(self, "reported", Adadelta.current_lr.fget(self))

    @current_lr.setter
    def current_lr(self, value):
        self.reported = value


class Frozen(Adadelta):
    """The lr is a constant of the compiled step."""

    clause = "B6"

    def update(self, grads):
        if not hasattr(self, "first"):
            self.first = float(self.current_lr)
        self._lr_scheduler = LRScheduler(self.first)
        super().update(grads)


class Returns(Adadelta):
    """update gives something back, where step does not."""

    clause = "B2"

    def update(self, grads):
        super().update(grads)
        return self


class StepsTwice(Adadelta):
    """step(), which the trainer calls, is not update()."""

    clause = "B8"

    def step(self, grads):
        self.update(grads)
        self.update(grads)


WRONG = [cls for cls in list(globals().values()) if hasattr(cls, "clause")]
