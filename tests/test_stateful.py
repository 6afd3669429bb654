"""Random sequences of calls, beside a model built on the oracle: after each, failed or not, the two must agree."""

import copy

import brainstate
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from braintools_adadelta import Adadelta, LRScheduler
from braintools_adadelta.oracle import ulp
from braintools_adadelta.oracle.bounds import PLAIN, bounds
from braintools_adadelta.oracle.exact import exact, largest_root, step

FMT = ulp.FORMATS["float32"]
OPTIONS = {"rho": 5 / 8, "eps": 0.25}
SHAPES = {"a": (2,), "b": (), "c": (1, 2)}
numbers = st.sampled_from([0.0, 1.0, -2.5, 0.125, 7.0, 1e3, -1e-3])
lrs = st.sampled_from([1.0, 0.5, 0.25, 0.0])


class Model:
    """What the optimizer should hold: exact numbers, their bounds, and plain Python."""

    def __init__(self):
        self.theta, self.memory, self.group, self.carried = {}, {}, {}, {}
        self.lrs, self.base, self.decays, self.counts, self.epoch = [1.0], [1.0], [0.0], [0, 0], 0

    def register(self, name, value, group=0):
        if name not in self.theta:
            self.theta[name] = exact(value)
            self.memory[name] = [exact([0.0] * len(value))] * 2
        self.group[name] = group

    def update(self, grads):
        for name, g in grads.items():
            k = self.group[name]
            options = OPTIONS | {"lr": self.lrs[k], "weight_decay": self.decays[k], "largest": largest_root(FMT)}
            before = self.theta[name], *self.memory[name]
            after = step(before[0], g, *before[1:], **options)
            carried = self.carried.get(name)
            self.carried[name] = bounds(after, *before, fmt=FMT, form=PLAIN, carried=carried, **options)
            self.theta[name], self.memory[name] = after.theta, [after.e_g2, after.e_delta2]
        self.counts[0] += 1

    def schedule(self):
        self.epoch += 1
        self.lrs = list(self.base)


class Optimizer(RuleBasedStateMachine):
    @initialize(compiled=st.booleans())
    def start(self, compiled):
        self.model, self.states, self.saved = Model(), {}, None
        self.ours = Adadelta(**OPTIONS, lr=LRScheduler(1.0), nonfinite="skip")
        self.compiled = compiled
        self.register("a", 2.0)

    def update_with(self, grads):
        update = brainstate.transform.jit(self.ours.update) if self.compiled else self.ours.update
        update(grads)

    def new(self, name, x):
        value = np.full(SHAPES[name], x, np.float32)
        self.states.setdefault(name, brainstate.ParamState(jnp.asarray(value)))
        self.model_value = value.ravel().tolist()
        return {name: self.states[name]}

    def gradient(self, x):
        return {name: np.full(SHAPES[name], x, np.float32) for name in self.states}

    @rule(name=st.sampled_from("abc"), x=numbers)
    def register(self, name, x):
        assert self.ours.register_trainable_weights(self.new(name, x)) is self.ours
        if name not in self.model.theta:
            self.model.register(name, self.model_value)

    @rule(name=st.sampled_from("abc"), x=numbers, lr=lrs, decay=st.sampled_from([0.0, 0.5]))
    def add_group(self, name, x, lr, decay):
        if self.model.group.get(name, 0):
            with pytest.raises(ValueError, match="is in an added group already"):
                self.ours.add_param_group({name: self.states[name]}, lr=lr)
            return
        self.ours.add_param_group(self.new(name, x), lr=lr, weight_decay=decay)
        model = self.model
        for entries, value in ((model.lrs, lr), (model.base, lr), (model.decays, decay)):
            entries.append(value)
        model.register(name, self.model_value, len(model.lrs) - 1)

    @rule(x=numbers)
    def update(self, x):
        grads = self.gradient(x)
        self.update_with(grads)
        self.model.update({name: [float(v) for v in g.ravel()] for name, g in grads.items()})

    @rule(bad=st.sampled_from([np.nan, np.inf]))
    def update_that_is_skipped(self, bad):
        self.update_with(self.gradient(1.0) | {"a": np.array([bad, 1.0], np.float32)})
        self.model.counts[1] += 1

    @rule(bad=st.sampled_from(["missing", "shape", "none", "complex", "text"]))
    def bad_update(self, bad):
        grads = self.gradient(1.0)
        grads["a"] = {"shape": np.ones(3), "none": None, "complex": np.ones(2) * 1j, "text": "x"}.get(bad)
        if bad == "missing":
            del grads["a"]
        with pytest.raises((TypeError, ValueError), match="'a'"):
            self.ours.update(grads)

    @rule(lr=lrs, data=st.data())
    def set_lr(self, lr, data):
        k = data.draw(st.integers(0, len(self.model.lrs) - 1))
        if k:
            self.ours.param_groups[k]["lr"] = lr
        else:
            self.ours.current_lr = lr
        self.model.lrs[k] = lr

    @rule(value=st.sampled_from([np.nan, -1.0, "x", None]))
    def set_a_bad_lr(self, value):
        with pytest.raises(ValueError, match="^lr = "):
            self.ours.current_lr = value

    @rule(decay=st.sampled_from([0.0, 0.5]), data=st.data())
    def set_decay(self, decay, data):
        k = data.draw(st.integers(0, len(self.model.lrs) - 1))
        self.ours.param_groups[k]["weight_decay"] = decay
        self.model.decays[k] = decay

    @rule()
    def step_the_schedule(self):
        self.ours.lr_scheduler.step()
        self.model.schedule()

    @rule()
    def save(self):
        values = {name: s.value for name, s in self.states.items()}
        self.saved = values, self.ours.state_dict(), copy.deepcopy(self.model)

    @precondition(lambda self: self.saved is not None)
    @rule()
    def load(self):
        values, state, model = self.saved
        if model.group != self.model.group or len(model.lrs) != len(self.model.lrs):
            with pytest.raises(ValueError, match="do not fit the registered parameters"):
                self.ours.load_state_dict(state)
            return
        self.ours.load_state_dict(state)
        for name, value in values.items():
            self.states[name].value = value
        self.model = copy.deepcopy(model)

    @rule(broken=st.sampled_from(["opt_state", "lr", "step_count", "param_groups"]))
    def load_what_is_broken(self, broken):
        state = self.ours.state_dict()
        del state[broken]
        with pytest.raises(ValueError, match="the state lacks"):
            self.ours.load_state_dict(state)

    @rule(relink=st.booleans())
    def deepcopy(self, relink):
        twin = copy.deepcopy(self.ours)
        twin.update(self.gradient(1.0))  # changes nothing here
        if relink:
            twin = copy.deepcopy(self.ours)
            self.states = {name: brainstate.ParamState(s.value) for name, s in self.states.items()}
            self.ours = twin.register_trainable_weights(dict(self.states))

    @invariant()
    def agree(self):
        ours, model = self.ours, self.model
        assert [int(ours.step_count.value), int(ours.skipped_steps.value)] == model.counts
        assert [float(group["lr"].value) for group in ours.param_groups] == model.lrs
        assert [group["weight_decay"] for group in ours.param_groups] == model.decays
        assert ours.current_lr == model.lrs[0] and int(ours.lr_scheduler.last_epoch.value) == model.epoch
        assert {n: k for k, group in enumerate(ours.param_groups) for n in group["params"]} == model.group
        assert ours.param_states.keys() == model.theta.keys()
        saved = ours.state_dict()["opt_state"]
        for name, theta in model.theta.items():
            assert ours.param_states[name] is self.states[name]
            e_g2, e_delta2 = model.memory[name]
            carried = self.model.carried.get(name)
            for field, got, want in (
                ("theta", self.states[name].value, theta),
                ("e_g2", saved["e_g2"][name], e_g2),
                ("e_delta2", saved["e_delta2"][name], e_delta2),
            ):
                allowed = [0] * len(want) if carried is None else getattr(carried, field)
                for x, y, bound in zip(np.ravel(np.asarray(got)), want, allowed, strict=True):
                    assert abs(exact(x)[0] - y) <= bound, (name, field, x, float(y), float(bound))


Optimizer.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
TestOptimizer = Optimizer.TestCase
