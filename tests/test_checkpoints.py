"""Checkpoints: a run resumes bit by bit, what is refused and why, Trainer, Orbax, a process killed while it saves."""

import pickle
from importlib.metadata import version

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ONE, OPTIONS, default_optimizer, everything, near_after_ones, optimizer, same, state
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import SCHEDULES

from braintools_adadelta import Adadelta, LRScheduler, interop

LR = braintools.optim


# ----------------------------------------------------------------------------------------------------------- resuming


def trained_alone(lr, steps=3):
    w = state(4.0, -1.0)
    ours = optimizer({"w": w}, lr=lr, **OPTIONS)
    for k in range(steps):
        ours.update({"w": jnp.array([8.0, k])})
    return ours, w


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("through", ["memory", "msgpack", "msgpack with target"])
def test_a_resumed_run_is_the_straight_run(kind, through, tmp_path):
    ours, w = trained_alone(SCHEDULES[kind][0]())
    ours.lr_scheduler.step()
    saved = ours.state_dict()
    assert {"step_count", "lr", "base_lr", "param_groups", "param_groups_opt_states", "opt_state"} <= saved.keys()
    again, v = trained_alone(SCHEDULES[kind][0](), steps=1)
    v.value = w.value
    if through != "memory":
        path = str(tmp_path / "state.msgpack")
        braintools.file.msgpack_save(path, saved, verbose=False)
        target = {"target": again.state_dict()} if "target" in through else {}
        saved = braintools.file.msgpack_load(path, verbose=False, **target)
    again.load_state_dict(saved)
    for k in range(4):
        for one in (ours, again):
            one.update({"w": jnp.array([1.0, k])})
        if k == 1:
            ours.lr_scheduler.step(), again.lr_scheduler.step()
        np.testing.assert_array_equal(w.value, v.value)
        assert float(ours.current_lr) == float(again.current_lr)
    assert int(again.step_count.value) == 7


def test_a_snapshot_is_not_changed_by_later_updates():
    ours, _ = trained_alone(1.0)
    snapshot = ours.state_dict()
    before = jax.tree.map(np.array, snapshot)
    for _ in range(3):
        ours.update({"w": jnp.ones(2)})
    jax.tree.map(np.testing.assert_array_equal, snapshot, before)
    ours.load_state_dict(snapshot)
    ours.update({"w": jnp.ones(2)})
    jax.tree.map(np.testing.assert_array_equal, snapshot, before)


def test_a_state_can_be_saved_before_anything_is_registered():
    assert Adadelta(lr=0.5).state_dict()["opt_state"] is None


LRS = {"number": lambda: 0.5, "function": lambda: lambda step: 1 / (1 + step), "StepLR": lambda: LR.StepLR(1.0, 1, 0.5)}


GRADS = {"a": jnp.array([8.0, 1.0]), "b": jnp.array(3.0), "z": jnp.array([1 + 2j])}


def trained(lr, steps=2):
    states = {"a": state(4.0, -1.0), "b": brainstate.ParamState(jnp.array(1.0)), "z": state(2 - 1j)}
    ours = Adadelta(lr=lr, **OPTIONS, nonfinite="skip").register_trainable_weights({k: states[k] for k in "az"})
    ours.add_param_group({"b": states["b"]}, weight_decay=0.1)
    for k in range(steps):
        ours.update(GRADS), ours.lr_scheduler.step()
        if k:
            ours.update({**GRADS, "b": jnp.array(jnp.nan)})
    return ours


def saved(ours, folder, target=None):
    path = str(folder / "state.msgpack")
    braintools.file.msgpack_save(path, ours.state_dict(), verbose=False)
    return braintools.file.msgpack_load(path, verbose=False, **({} if target is None else {"target": target}))


@pytest.mark.parametrize("lr", LRS)
@pytest.mark.parametrize("form", ["memory", "msgpack", "msgpack with target"])
def test_groups_schedules_and_counts_resume_bit_by_bit(lr, form, tmp_path):
    ours, again = trained(LRS[lr]()), trained(LRS[lr](), steps=0)
    for name, s in ours.param_states.items():
        again.param_states[name].value = s.value
    again.param_groups[1]["weight_decay"] = 0.7
    target = again.state_dict() if "target" in form else None
    again.load_state_dict(ours.state_dict() if form == "memory" else saved(ours, tmp_path, target))
    same(everything(again), everything(ours))
    for each in (ours, again):
        each.update(GRADS), each.lr_scheduler.step(), each.update(GRADS)
    same(everything(again), everything(ours))
    assert again.skipped_steps.value == 1 and again.step_count.value == 4


# -------------------------------------------------------------------------------------------------- what does not fit


def changed_state(change):
    state = trained_alone(1.0)[0].state_dict()
    change(state)
    return state


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda s: s.pop("opt_state"), r"lacks \['opt_state'\]"),
        (lambda s: s["opt_state"]["e_g2"].pop("w"), r"accumulators of \['e_g2.w'\] do not fit"),
        (lambda s: s["opt_state"]["e_g2"].update(v=jnp.ones(2)), r"accumulators of \['e_g2.v'\] do not fit"),
        (lambda s: s["opt_state"]["e_g2"].update(w=jnp.ones(3)), r"got \[\(3,\)\], need \[\(2,\)\]"),
        (lambda s: s.update(lr=float("nan")), "^lr = nan"),
    ],
    ids=["no opt_state", "missing", "too many", "shape", "lr"],
)
def test_a_state_that_does_not_fit_changes_nothing(bad, message):
    ours, w = trained_alone(1.0)
    before = jax.tree.map(np.asarray, (ours.state_dict(), w.value))
    with pytest.raises(ValueError, match=message):
        ours.load_state_dict(changed_state(bad))
    jax.tree.map(np.testing.assert_array_equal, before, (ours.state_dict(), w.value))


def memory(saved, e_g2):
    """Return the state with `e_g2` for that of "b"."""
    return saved | {"opt_state": saved["opt_state"] | {"e_g2": saved["opt_state"]["e_g2"] | {"b": e_g2}}}


def schedule(saved, **changed):
    ((name, state),) = saved["lr_scheduler"].items()
    return saved | {"lr_scheduler": {name: state | changed}}


REFUSED = {  # what is done to a state dict -> what is said of it
    "no dict": (lambda s: None, TypeError, "got None: pass what state_dict"),
    "empty": (lambda s: {}, ValueError, r"lacks \['base_lr', 'lr', 'opt_state', 'param_groups', "),
    "unknown": (lambda s: s | {"momentum": 1}, ValueError, r"has unknown keys \['momentum'\]: pass what state_dict"),
    "opt_state": (lambda s: s | {"opt_state": 3.0}, ValueError, "do not fit the registered parameters"),
    "text": (lambda s: s | {"opt_state": {"e_g2": "x"}}, ValueError, r"\['e_delta2.a', .* got \['missing'"),
    "one group": (lambda s: s | {"param_groups": {"0": s["param_groups"]["0"]}}, ValueError, "parameter groups of"),
    "step count": (lambda s: s | {"step_count": -1}, ValueError, "step_count = -1 is not allowed: it must be a whole"),
    "half a step": (lambda s: s | {"step_count": 1.5}, ValueError, "step_count = 1.5 is not allowed"),
    "lr": (lambda s: s | {"lr": float("inf")}, ValueError, "lr = inf is not allowed"),
    "base lr": (lambda s: s | {"base_lr": "x"}, ValueError, "base_lr = 'x' is not allowed"),
    "a bool": (lambda s: s | {"step_count": True}, ValueError, "step_count = True is not allowed"),
    "a negative average": (lambda s: memory(s, -1.0), ValueError, "the accumulator 'e_g2.b' is not allowed: it is neg"),
    "group lr": (
        lambda s: s | {"param_groups": s["param_groups"] | {"1": s["param_groups"]["1"] | {"lr": float("nan")}}},
        ValueError,
        r"param_groups\[1\]\['lr'\] = nan is not allowed: it must be a finite number",
    ),
    "groups": (
        lambda s: s | {"param_groups": {"0": s["param_groups"]["0"]}},
        ValueError,
        r"it has 1, the optimizer 2; call add_param_group\(\) as when it was saved",
    ),
    "another scheduler": (
        lambda s: s | {"lr_scheduler": trained(LRS["StepLR"]()).state_dict()["lr_scheduler"]},
        ValueError,
        r"a run with lr = StepLR\(...\), and this optimizer has LRScheduler\(...\) .* leave 'lr_scheduler' out",
    ),
    "current_lrs": (
        lambda s: schedule(s, current_lrs=[float("nan"), 1.0]),
        ValueError,
        r"current_lrs.0 = nan is not a",
    ),
    "base_lrs": (lambda s: schedule(s, base_lrs=[-1.0, 1.0]), ValueError, r"base_lrs\[0\] = .* is not allowed"),
    "held": (lambda s: schedule(s, held=[7, 0]), ValueError, r"held\[0\] = 7 is not allowed"),
    "epoch": (
        lambda s: schedule(s, last_epoch=-5),
        ValueError,
        "last_epoch = -5 is not allowed: .* finite number >= 0",
    ),
    "schedule": (lambda s: s | {"lr_scheduler": {}}, ValueError, "scheduler state of"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_fit_is_refused_and_changes_nothing(kind):
    change, error, message = REFUSED[kind]
    ours, other = trained(0.5), trained(0.5, steps=1)
    before = everything(other)
    with pytest.raises(error, match=message):
        other.load_state_dict(change(ours.state_dict()))
    same(everything(other), before)


@pytest.mark.parametrize(("name", "found"), [("Adam", r"\['mu', 'nu'\]"), ("RMSprop", r"\['nu'\]")])
def test_the_state_of_another_optimizer_is_refused(name, found):
    w = state(4.0)
    ours, other = Adadelta().register_trainable_weights({"mu": w}), getattr(LR, name)(lr=0.1)
    other.register_trainable_weights({"mu": w})
    with pytest.raises(ValueError, match=f"it has {found}, and no accumulators of Adadelta"):
        ours.load_state_dict(other.state_dict())
    ours.load_state_dict(ours.state_dict())  # a parameter may have any name


def test_groups_must_hold_the_same_parameters():
    a, b = state(1.0), state(1.0)
    ours, other = (Adadelta().register_trainable_weights({"a": a, "b": b}) for _ in range(2))
    ours.add_param_group({"a": a})
    other.add_param_group({"b": b})
    with pytest.raises(
        ValueError, match=r"parameter groups of \['0.params.a', '0.params.b', '1.params.a', '1.params.b'"
    ):
        other.load_state_dict(ours.state_dict())


def test_a_key_among_the_accumulators():
    ours = default_optimizer({"w": state(1.0)})
    saved = ours.state_dict()
    saved["opt_state"]["e_g2"]["w"] = jax.random.key(0)
    with pytest.raises(ValueError, match=r"the accumulators of \['e_g2.w'\] do not fit"):
        ours.load_state_dict(saved)


JUNK = [None, "x", b"x", -1, 1.5, 1j, [], {}, {"0": 1}, np.ones(7), np.array(["x"]), float("nan"), object()]


def paths(tree, path=()):
    """Yield the path to every node of nested dictionaries."""
    yield path
    if isinstance(tree, dict):
        for key in tree:
            yield from paths(tree[key], (*path, key))


def mangled(tree, path, how, junk):
    """Return a copy of `tree` with the node at `path` missing, doubled, renamed, replaced, reshaped or cut short."""
    if path:
        key, *rest = path
        tree = dict(tree)
        if rest or how in ("junk", "reshape", "truncate"):
            tree[key] = mangled(tree[key], rest, how, junk)
        elif how == "missing":
            del tree[key]
        else:
            tree["?" + str(key)] = tree[key] if how == "extra" else tree.pop(key)
        return tree
    if how == "truncate" and isinstance(tree, dict):
        return dict(list(tree.items())[: len(tree) // 2])
    if how == "reshape" and not isinstance(tree, dict):
        return np.stack([np.asarray(tree)] * 2)
    return junk


@settings(max_examples=60)
@given(st.data())
def test_a_mangled_state_is_refused_in_our_words_or_loads_and_changes_nothing_else(data):
    ours, other = MANGLED
    tree = ours.state_dict()
    path = data.draw(st.sampled_from([p for p in paths(tree) if p[:1] != ("param_groups",) or "params" not in p]))
    how = data.draw(st.sampled_from(["missing", "extra", "renamed", "junk", "reshape", "truncate"]))
    tree = mangled(tree, path, how, data.draw(st.sampled_from(JUNK)))
    before = everything(other)
    try:
        other.load_state_dict(tree)
    except (TypeError, ValueError) as error:
        words = ("lacks", "has unknown keys", "not fit", "is not allowed", "got ", "trained by Adam")
        assert any(word in str(error) for word in words), repr(error)
        same(everything(other), before)
    else:
        other.update(GRADS)  # what was loaded is a state to go on from
        other.load_state_dict(ORIGINAL)


MANGLED = trained(LR.StepLR([1.0, 0.5], 1, 0.5)), trained(LR.StepLR([1.0, 0.5], 1, 0.5), steps=1)


ORIGINAL = MANGLED[1].state_dict()


# ---------------------------------------------------------------------------- what was saved otherwise, and schedules


def without_parameters(ours):
    saved = ours.state_dict()
    for group in saved["param_groups"].values():
        del group["params"]
    return saved


def test_whatever_was_saved_is_loaded():
    """A function that turns negative, an average that a gradient made infinite, a float64 in a float32."""
    ours, other = (trained(lambda step: 1.0 - step, steps=0) for _ in range(2))
    for g in ([8.0, jnp.inf], [8.0, 1.0]):
        ours.update(GRADS | {"a": jnp.array(g)}), ours.update(GRADS)
    ours.nonfinite = "propagate"
    ours.update(GRADS | {"a": jnp.array([8.0, jnp.inf])})
    assert ours.current_lr < 0 and np.isinf(ours.opt_state.value.e_g2["a"][1])
    other.load_state_dict(ours.state_dict())
    same(without_parameters(other), without_parameters(ours))
    other.load_state_dict(memory(ours.state_dict(), np.float64(1e300)))
    assert other.opt_state.value.e_g2["b"] == jnp.finfo(jnp.float32).max


def test_a_schedule_without_a_name_or_left_out_is_loaded():
    ours, other = trained(LRS["StepLR"]()), trained(LRS["StepLR"](), steps=0)
    saved = ours.state_dict()
    other.load_state_dict(saved | {"lr_scheduler": saved["lr_scheduler"]["StepLR"]})
    same(without_parameters(other), without_parameters(ours))
    del saved["lr_scheduler"]
    anew = trained(0.5, steps=0)
    anew.load_state_dict(saved)
    assert [anew.current_lr, anew.lr_scheduler.last_epoch.value] == [0.5, 0]


ANEW = {
    "number": (lambda: 0.01, 0.01),
    "function": (lambda: lambda step: 0.01 * step, 0.02),  # is read at the step count that is loaded
    "scheduler": (lambda: LRScheduler(lambda epoch: 0.01 * 0.5**epoch), 0.01),
    "ReduceLROnPlateau": (lambda: LR.ReduceLROnPlateau(0.01), 0.01),
    "WarmupScheduler": (lambda: LR.WarmupScheduler(0.01, warmup_epochs=5, warmup_start_lr=0.002), 0.002),
    "StepLR": (lambda: LR.StepLR(0.01, 100), 0.01),
    "CosineAnnealingLR": (lambda: LR.CosineAnnealingLR(0.01, T_max=10), 0.01),
    "OneCycleLR": (lambda: LR.OneCycleLR(0.01, total_steps=10), 0.0004),
    "ExponentialLR": (lambda: LR.ExponentialLR(0.01, gamma=0.5), 0.01),
}


@pytest.mark.parametrize("before", LRS)
@pytest.mark.parametrize("kind", ANEW)
def test_another_schedule_is_in_force_as_soon_as_a_state_without_one_is_loaded(kind, before):
    """Its lr, its base lr, and the lr of a group that is added later."""
    make, lr = ANEW[kind]
    saved = trained(LRS[before](), steps=2).state_dict()
    del saved["lr_scheduler"]
    ours, fresh = trained(make(), steps=0), trained(make(), steps=0)
    ours.load_state_dict(saved)
    assert float(ours.current_lr) == pytest.approx(lr) and ours.base_lr == fresh.base_lr
    for each in (ours, fresh):
        each.add_param_group({"late": state(1.0)})
    assert ours.step_count.value == 2
    if kind != "function":
        assert [group["lr"].value for group in ours.param_groups] == [group["lr"].value for group in fresh.param_groups]


def test_a_function_is_read_at_the_step_count_that_was_loaded():
    """Also after a state that says nothing of the schedule: that of braintools, of optax, or one without it."""
    w, falling = state(1.0), lambda count: 1 / (1 + count)
    theirs = LR.Adadelta(lr=0.5)
    theirs.register_trainable_weights({"w": w})
    theirs.update({"w": ONE})
    ours = default_optimizer({"w": w}, lr=falling)
    ours.current_lr = 0.125  # forgotten, too
    ours.load_state_dict(theirs.state_dict())
    lrs = []
    for _ in range(3):
        lrs.append(float(ours.current_lr))
        ours.update({"w": ONE})
    np.testing.assert_allclose(lrs, [1 / 2, 1 / 3, 1 / 4], rtol=1e-6)
    interop.from_optax(ours, interop.to_optax(ours), step_count=7)
    assert ours.current_lr == 1 / 8


def test_a_function_that_gives_no_lr_at_the_step_count_that_is_loaded():
    ours = default_optimizer({"w": state(1.0)}, lr=lambda count: 1.0 - count)
    saved = jax.tree.map(np.array, ours.state_dict())
    del saved["lr_scheduler"]
    with pytest.raises(ValueError, match="^lr = .*-4.* is not allowed"):
        ours.load_state_dict(saved | {"step_count": 5})
    assert ours.step_count.value == 0 and ours.current_lr == 1.0


class Remembering(LR.LRScheduler):
    """A user's scheduler, whose state grows and may refuse what it is given."""

    def __init__(self, lr):
        self.best, self.seen = None, []
        super().__init__(lr)

    def get_lr(self):
        return list(self.base_lrs)

    def state_dict(self):
        return {**super().state_dict(), "best": self.best, "seen": list(self.seen)}

    def load_state_dict(self, state):
        self.seen = state["seen"]
        if state["best"] == "bad":
            raise ValueError("bad")
        self.best = state["best"]
        super().load_state_dict(state)


def by_msgpack(x, folder):
    braintools.file.msgpack_save(str(folder / "state"), x, verbose=False)
    return braintools.file.msgpack_load(str(folder / "state"), verbose=False)


@pytest.mark.parametrize("carry", [lambda x, folder: x, by_msgpack], ids=["memory", "msgpack"])
def test_the_state_of_a_users_scheduler_is_its_own_affair(carry, tmp_path):
    ours = default_optimizer({"w": state(1.0)}, lr=Remembering(1.0))
    ours.lr_scheduler.best, ours.lr_scheduler.seen = 0.5, [1.0, 2.0]
    saved, new = ours.state_dict(), default_optimizer({"w": state(1.0)}, lr=Remembering(1.0))
    new.load_state_dict(carry(saved, tmp_path))
    assert (new.lr_scheduler.best, new.lr_scheduler.seen) == (0.5, [1.0, 2.0])
    saved["lr_scheduler"]["Remembering"] |= {"best": "bad", "seen": [3.0]}
    with pytest.raises(ValueError, match="bad"):
        new.load_state_dict(saved)
    assert (new.lr_scheduler.best, new.lr_scheduler.seen) == (0.5, [1.0, 2.0])


def test_the_lr_of_a_state_takes_effect():
    w = state(1.0)
    ours = default_optimizer({"w": w})
    ours.load_state_dict(ours.state_dict() | {"lr": 0.5})
    ours.update({"w": ONE})
    near_after_ones(w.value, 1, lr=0.5)
    with pytest.raises(ValueError, match="^lr = .* is not allowed: it must be a finite number"):
        ours.load_state_dict(ours.state_dict() | {"lr": "x"})


# ------------------------------------------------------------------------------------------------------------ Trainer


class Fit(braintools.trainer.LightningModule):
    """A line through points."""

    def __init__(self, cls, lr):
        super().__init__()
        self.line, self.cls, self.rate = brainstate.nn.Linear(1, 1), cls, lr
        self.line.weight.value = {"weight": jnp.ones((1, 1)), "bias": jnp.zeros(1)}

    def training_step(self, batch, batch_idx):
        x, y = batch
        return {"loss": jnp.mean((self.line(x) - y) ** 2)}

    def configure_optimizers(self):
        scheduler = LR.StepLR(self.rate, step_size=1, gamma=0.5)
        self.optimizer = self.cls(lr=scheduler, **OPTIONS)
        return self.optimizer, scheduler


def points():
    x = np.linspace(-1, 1, 8, dtype=np.float32)[:, None]
    return braintools.trainer.DataLoader(braintools.trainer.ArrayDataset(x, 3 * x + 1), batch_size=4, shuffle=False)


def fit(folder, epochs, callbacks=(), frozen=False, cls=Adadelta, **options):
    model = Fit(cls, 1.0)
    if frozen:
        model.freeze()
    quiet = {"enable_progress_bar": False, "enable_checkpointing": False, "logger": False}
    trainer = braintools.trainer.Trainer(
        max_epochs=epochs, default_root_dir=str(folder), callbacks=list(callbacks), **quiet
    )
    trainer.fit(model, points(), **options)
    return model


@pytest.mark.filterwarnings("ignore")
def test_trainer_may_register_a_model_that_is_frozen_as_a_whole(tmp_path):
    """Nobody else may register nothing."""
    model = fit(tmp_path, 1, frozen=True)
    assert model.line.weight.value["weight"] == 1 and model.optimizer.param_states == {}
    with pytest.raises(ValueError, match="there is no State in it"):
        Adadelta().register_trainable_weights({})


# max_epochs counts all epochs; before 0.4 it counted those after the resume.
RESUMES_AT_ITS_EPOCH = [int(x) for x in version("braintools").split(".")[:2]] >= [0, 4]


@pytest.mark.filterwarnings("ignore")
def test_trainer_fits_saves_and_resumes(tmp_path):
    """Two epochs, a resume and the third are the straight run of three."""
    save = braintools.trainer.ModelCheckpoint(dirpath=str(tmp_path), save_last=True, monitor=None)
    fit(tmp_path, 2, [save, braintools.trainer.LearningRateMonitor()])
    path = str(tmp_path / "last.ckpt")
    resumed, straight = fit(tmp_path, 3 if RESUMES_AT_ITS_EPOCH else 1, ckpt_path=path), fit(tmp_path, 3)
    assert resumed.optimizer.step_count.value == straight.optimizer.step_count.value == 6
    same(resumed.line.weight.value, straight.line.weight.value)
    assert float(resumed.optimizer.current_lr) == float(straight.optimizer.current_lr)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not RESUMES_AT_ITS_EPOCH, reason="the trainer of this version steps no scheduler on a resume")
def test_trainer_may_step_the_scheduler_to_where_it_was(tmp_path):
    """An older trainer wrote no state of schedulers: that in the optimizer must not be stepped on from."""
    save = braintools.trainer.ModelCheckpoint(dirpath=str(tmp_path), save_last=True, monitor=None)
    fit(tmp_path, 2, [save])
    saved = braintools.trainer.load_checkpoint(str(tmp_path / "last.ckpt"))
    older = {key: x for key, x in saved.items() if not key.startswith("lr_schedulers")}
    braintools.trainer.save_checkpoint(older, str(tmp_path / "older.ckpt"))
    model = fit(tmp_path, 3, ckpt_path=str(tmp_path / "older.ckpt"))
    assert (int(model.optimizer.step_count.value), float(model.optimizer.current_lr)) == (6, 0.5**3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not RESUMES_AT_ITS_EPOCH, reason="the original of this version cannot resume")
def test_trainer_takes_as_many_steps_as_with_the_original(tmp_path):
    counts = {}
    for cls in (Adadelta, braintools.optim.Adadelta):
        folder = tmp_path / cls.__module__
        save = braintools.trainer.ModelCheckpoint(dirpath=str(folder), save_last=True, monitor=None)
        fit(folder, 2, [save], cls=cls)
        model = fit(folder, 5, cls=cls, ckpt_path=str(folder / "last.ckpt"))
        counts[cls] = int(model.optimizer.step_count.value), float(model.optimizer.current_lr)
    assert counts[Adadelta] == counts[braintools.optim.Adadelta] == (10, 0.5**5)


# ------------------------------------------------------------------------------------------------------ States, Orbax


def test_it_is_a_graph_node_that_shows_its_states():
    ours = default_optimizer({"w": state(1.0)})
    found = brainstate.graph.states(ours)
    assert {id(s) for s in found.values()} >= {id(s) for s in (ours.opt_state, ours.step_count, ours._current_lr)}


def states_of(optimizer):
    return {".".join(map(str, path)): s for path, s in brainstate.graph.states(optimizer).items()}


@pytest.mark.parametrize("lr", LRS)
@pytest.mark.parametrize("through", ["memory", "Orbax"])
def test_all_that_is_needed_to_go_on_is_in_the_states(lr, through, tmp_path):
    ours, again = trained(LRS[lr]()), trained(LRS[lr](), steps=1)
    values = {name: s.value for name, s in states_of(ours).items()}
    if through == "Orbax":
        checkpointer = pytest.importorskip("orbax.checkpoint").StandardCheckpointer()
        checkpointer.save(tmp_path / "states", values)
        checkpointer.wait_until_finished()
        values = checkpointer.restore(tmp_path / "states", values)
    for name, s in states_of(again).items():
        s.value = values[name]
    for each in (ours, again):
        each.update(GRADS), each.lr_scheduler.step(), each.update(GRADS)
    same(everything(again), everything(ours))


# ------------------------------------------------------------------------------------------------------------ damage


def damaged(accumulators, field, name, change):
    """Return the accumulators with what `change` makes of one of them."""
    trees = {key: dict(tree) for key, tree in accumulators._asdict().items()}
    trees[field][name] = change(trees[field][name])
    return type(accumulators)(**trees)


DAMAGE = {  # of what was restored into the State
    "negative": (lambda x: x.at[0].set(-1.0), "'e_g2.a' is not allowed: it is negative in places"),
    "NaN": (lambda x: x.at[1].set(jnp.nan), "'e_g2.a' is not allowed: it is not a number .NaN. where its parameter is"),
    "shape": (lambda x: x[:1], r"do not fit .* got \['float32 of shape \(1,\)'\], need .* shape \(2,\)"),
    "dtype": (lambda x: x.astype("float16"), r"got \['float16 of shape \(2,\)'\], need \['float32 of shape"),
    "numpy": (lambda x: np.asarray(x) - 99, "'e_g2.a' is not allowed: it is negative in places"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_was_put_into_the_state_of_the_accumulators_is_looked_at(kind):
    change, message = DAMAGE[kind]
    ours = trained(0.5)
    good = ours.opt_state.value
    ours.opt_state.value = damaged(good, "e_g2", "a", change)
    before = {name: s.value for name, s in ours.param_states.items()}
    for _ in range(2):  # it stays refused
        with pytest.raises(ValueError, match=message):
            ours.update(GRADS)
    same({name: s.value for name, s in ours.param_states.items()}, before)
    assert ours.step_count.value == trained(0.5).step_count.value
    ours.opt_state.value = good
    ours.update(GRADS)


@pytest.mark.parametrize("part", ["real", "imag"])
def test_a_complex_accumulator_is_looked_at(part):
    ours = trained(0.5)
    poison = lambda x: x | {part: x[part].at[0].set(jnp.nan)}
    ours.opt_state.value = damaged(ours.opt_state.value, "e_delta2", "z", poison)
    with pytest.raises(ValueError, match=f"'e_delta2.z.{part}' is not allowed: it is not a number"):
        ours.update(GRADS)


def test_a_compiled_step_looks_when_it_is_traced():
    """As a program does that resumes."""
    ours = trained(0.5, steps=0)
    ours.opt_state.value = damaged(ours.opt_state.value, "e_g2", "a", lambda x: x - 1)
    with pytest.raises(ValueError, match="'e_g2.a' is not allowed: it is negative in places"):
        brainstate.transform.jit(lambda: ours.update(GRADS))()


def test_accumulators_that_a_gradient_made_infinite_are_not_damaged():
    ours = trained(0.5)
    ours.nonfinite = "propagate"
    ours.update(GRADS | {"a": jnp.array([jnp.inf, jnp.nan])})
    ours.opt_state.value = ours.opt_state.value
    ours.update(GRADS)
    again = trained(0.5, steps=0)
    again.load_state_dict(ours.state_dict())


def test_a_damaged_pickle_is_refused():
    ours = default_optimizer({"w": brainstate.ParamState(jnp.ones(64))})
    ours.update({"w": jnp.full(64, 3.0)})
    data = pickle.dumps(ours)
    number = np.asarray(ours.opt_state.value.e_g2["w"]).tobytes()
    assert data.count(number) == 1
    with pytest.raises(ValueError, match="the pickle of an optimizer is damaged: .* Take another"):
        pickle.loads(data.replace(number, np.full(64, 0.5, np.float32).tobytes()))


def test_nothing_is_looked_at_without_need(monkeypatch):
    """Neither after a step of ours, nor after a checkpoint was taken or loaded."""
    ours, looks = trained(0.5), []
    monkeypatch.setattr("braintools_adadelta.saving.check_restored", lambda *_: looks.append(0))
    ours.update(GRADS), ours.load_state_dict(ours.state_dict()), ours.update(GRADS)
    step = brainstate.transform.jit(lambda: ours.update(GRADS))
    step(), step(), step()
    assert not looks
    ours.opt_state.value = ours.opt_state.value
    ours.update(GRADS), ours.update(GRADS)
    assert len(looks) == 1
