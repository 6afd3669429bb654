"""Train in one framework, move the memory, go on in the other: where the exact run ends, up to rounding."""

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compare_with_oracle import assert_near_exact

from braintools_adadelta import Adadelta
from braintools_adadelta.interop import from_optax, from_torch, to_braintools, to_optax, to_torch

RNG = np.random.default_rng(0)
draw = lambda: {"w": RNG.normal(size=(3, 2)).astype("float32"), "layer": {"b": RNG.normal(size=2).astype("float32")}}
START, GRADS = draw(), [draw() for _ in range(6)]
OPTIONS = {"rho": 0.75, "eps": 1e-2}
NAMES = ["w", "layer.b"]
dotted = lambda tree: {"w": tree["w"], "layer.b": tree["layer"]["b"]}


def ours(start):
    states = {"w": brainstate.ParamState(jnp.asarray(start["w"])), "layer": brainstate.ParamState(start["layer"])}
    return Adadelta(**OPTIONS).register_trainable_weights(states), states


def values(states):
    return {name: state.value for name, state in states.items()}


def near(got):
    assert_near_exact(got, START, GRADS, **OPTIONS)


TX = optax.chain(optax.scale_by_adadelta(**OPTIONS), optax.scale(-1.0))


def optax_steps(params, state, grads):
    for g in grads:
        updates, state = TX.update(g, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def test_from_optax():
    params, state = optax_steps(START, TX.init(START), GRADS[:3])
    optimizer, states = ours(params)
    from_optax(optimizer, state, step_count=3)
    for g in GRADS[3:]:
        optimizer.update(g)
    near(values(states))
    assert optimizer.step_count.value == 6


def test_to_optax():
    optimizer, states = ours(START)
    for g in GRADS[:3]:
        optimizer.update(g)
    params, _ = optax_steps(values(states), (to_optax(optimizer), optax.ScaleState()), GRADS[3:])
    near(params)


@pytest.mark.parametrize("state", [optax.ScaleState(), (optax.ScaleByAdaDeltaState({}, {}),) * 2], ids=["none", "two"])
def test_an_optax_state_must_be_one(state):
    optimizer, _ = ours(START)
    with pytest.raises(ValueError, match=r"there are (0|2) states with e_g and e_x in"):
        from_optax(optimizer, state)


def test_an_optax_state_that_does_not_fit():
    optimizer, _ = ours(START)
    optimizer.update(GRADS[0])
    before = jax.tree.map(np.array, optimizer.state_dict())
    with pytest.raises(ValueError, match=r"accumulators of \['e_delta2.layer.b', 'e_delta2.w', .* do not fit"):
        from_optax(optimizer, optax.scale_by_adadelta().init({"w": jnp.ones(2)}))
    jax.tree.map(np.testing.assert_array_equal, before, optimizer.state_dict())


def torch_optimizer(start):
    torch = pytest.importorskip("torch")
    parameters = [torch.nn.Parameter(torch.from_numpy(np.array(x))) for x in dotted(start).values()]
    return parameters, torch.optim.Adadelta(parameters, **OPTIONS)


def torch_steps(parameters, optimizer, grads):
    torch = pytest.importorskip("torch")
    for g in grads:
        for p, x in zip(parameters, dotted(g).values(), strict=True):
            p.grad = torch.from_numpy(x)
        optimizer.step()


@pytest.mark.filterwarnings("ignore")
def test_from_torch():
    parameters, theirs = torch_optimizer(START)
    torch_steps(parameters, theirs, GRADS[:3])
    w, b = (p.detach().numpy() for p in parameters)
    optimizer, states = ours({"w": w, "layer": {"b": b}})
    from_torch(optimizer, theirs.state_dict(), NAMES)
    for g in GRADS[3:]:
        optimizer.update(g)
    near(values(states))
    assert optimizer.step_count.value == 6


@pytest.mark.filterwarnings("ignore")
def test_to_torch():
    optimizer, states = ours(START)
    for g in GRADS[:3]:
        optimizer.update(g)
    parameters, theirs = torch_optimizer(values(states))
    theirs.load_state_dict(to_torch(optimizer, theirs.state_dict(), NAMES))
    torch_steps(parameters, theirs, GRADS[3:])
    w, b = (p.detach().numpy() for p in parameters)
    near({"w": w, "layer": {"b": b}})


@pytest.mark.filterwarnings("ignore")
def test_a_torch_state_before_its_first_step():
    _, theirs = torch_optimizer(START)
    with pytest.raises(
        ValueError, match=r"no square_avg and acc_delta for \['w', 'layer.b'\]: take a step there first"
    ):
        from_torch(ours(START)[0], theirs.state_dict(), NAMES)


# ---------------------------------------------------------------------------------------------------------- braintools

CHAINS = [{}, {"weight_decay": 0.1}, {"grad_clip_value": 0.5}, {"grad_clip_value": 0.5, "weight_decay": 0.1}]
FORMS = ["memory", "msgpack", "msgpack with target"]


def through(form, state, target, folder):
    if form == "memory":
        return state
    path = str(folder / "state.msgpack")
    braintools.file.msgpack_save(path, state, verbose=False)
    return braintools.file.msgpack_load(path, verbose=False, **({"target": target} if "target" in form else {}))


def pair(cls, start, options):
    states = {
        ("w",): brainstate.ParamState(jnp.asarray(start["w"])),
        ("layer",): brainstate.ParamState(jax.tree.map(jnp.asarray, start["layer"])),
    }
    optimizer = cls(**OPTIONS, **options)
    optimizer.register_trainable_weights(states)
    return optimizer, states


def steps(optimizer, grads):
    for g in grads:
        optimizer.update({("w",): jnp.asarray(g["w"]), ("layer",): jax.tree.map(jnp.asarray, g["layer"])})


@pytest.mark.parametrize("options", CHAINS, ids=lambda x: " ".join(x) or "plain")
@pytest.mark.parametrize("form", FORMS)
def test_from_braintools(form, options, tmp_path):
    """Its state dict is a chain: an empty state for each clip and for the decay, accumulators, a count."""
    theirs, states = pair(braintools.optim.Adadelta, START, options)
    steps(theirs, GRADS[:3])
    now = {name: states[name,].value for name in ("w", "layer")}
    optimizer, states = pair(Adadelta, now, options)
    optimizer.load_state_dict(through(form, theirs.state_dict(), theirs.state_dict(), tmp_path))
    steps(optimizer, GRADS[3:])
    assert_near_exact({name: states[name,].value for name in ("w", "layer")}, START, GRADS, **OPTIONS, **options)
    assert optimizer.step_count.value == 6


@pytest.mark.parametrize("options", CHAINS, ids=lambda x: " ".join(x) or "plain")
@pytest.mark.parametrize("form", ["memory", "msgpack with target"])
def test_to_braintools(form, options, tmp_path):
    optimizer, states = pair(Adadelta, START, options)
    steps(optimizer, GRADS[:3])
    now = {name: states[name,].value for name in ("w", "layer")}
    theirs, states = pair(braintools.optim.Adadelta, now, options)
    moved = to_braintools(optimizer, theirs.state_dict())
    theirs.load_state_dict(through(form, moved, theirs.state_dict(), tmp_path))
    steps(theirs, GRADS[3:])
    assert_near_exact({name: states[name,].value for name in ("w", "layer")}, START, GRADS, **OPTIONS, **options)
    assert theirs.step_count.value == 6


@pytest.mark.parametrize("form", ["memory", "msgpack"])
def test_groups_that_braintools_trained_by_adam_are_refused(form, tmp_path):
    a, b = (brainstate.ParamState(jnp.ones(2)) for _ in range(2))
    theirs, optimizer = braintools.optim.Adadelta(), Adadelta()
    for each in (theirs, optimizer):
        each.register_trainable_weights({"a": a})
        each.add_param_group({"b": b}, lr=0.1)
    with pytest.raises(ValueError, match="trained by Adam: it has no accumulators of Adadelta"):
        optimizer.load_state_dict(through(form, theirs.state_dict(), None, tmp_path))
    adam = braintools.optim.Adam()
    adam.register_trainable_weights({"a": a})
    with pytest.raises(ValueError, match="and no accumulators of Adadelta .* so another optimizer has written it"):
        Adadelta().register_trainable_weights({"a": a}).load_state_dict(
            through(form, adam.state_dict(), None, tmp_path)
        )
    with pytest.raises(ValueError, match="braintools would train them by Adam"):
        to_braintools(optimizer, theirs.state_dict())
