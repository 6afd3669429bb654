"""Meshes of eight devices: run by test_layouts.py, in a process that has them."""

import copy
import pickle
import re
import subprocess
import sys

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare_with_oracle import assert_near_exact
from helpers import everything, same
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding
from test_cost import Compilations

from braintools_adadelta import Adadelta, transform, update
from braintools_adadelta.oracle.bounds import PLAIN
from braintools_adadelta.transform import Options

P = PartitionSpec
KINDS = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
OPTIONS = {
    "plain": {},
    "all": {"weight_decay": 0.1, "grad_clip_norm": 2.0, "grad_clip_value": 0.5, "nonfinite": "skip"},
}
LAYOUTS = {  # axes of the mesh, of the parameter and of its gradient
    "whole from pieces": ((8,), P(), P("x")),
    "pieces from whole": ((8,), P("x"), P()),
    "pieces": ((8,), P("x", None), P("x")),
    "one axis from two": ((4, 2), P("x"), P("x", "y")),
    "two axes from one": ((4, 2), P("x", "y"), P(None, "x")),
    "other axes": ((2, 4), P(None, "y"), P("y", "x")),
    "both on one": ((2, 4), P(("x", "y")), P()),
}


def mesh_of(*shape, kind="auto", devices=None):
    devices = np.array(jax.devices()[: np.prod(shape)] if devices is None else devices).reshape(shape)
    return jax.sharding.Mesh(devices, tuple("xy"[: len(shape)]), axis_types=(KINDS[kind],) * len(shape))


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def memory(optimizer):
    """Return the accumulators to somebody who will not keep them."""
    return jax.tree.leaves(optimizer.opt_state.peek())


def small_states(optimizer):
    """Return all arrays that are neither parameters nor accumulators."""
    others = [s for s in brainstate.graph.states(optimizer).values() if not isinstance(s, brainstate.ParamState)]
    arrays = jax.tree.leaves([s.value for s in others if s is not optimizer.opt_state])
    return [x for x in arrays if isinstance(x, jax.Array)]


def eager(optimizer):
    return optimizer.update


def jitted(optimizer):
    return brainstate.transform.jit(lambda g: optimizer.update(g))


def looped(optimizer):
    many = brainstate.transform.for_loop
    return brainstate.transform.jit(lambda g: many(lambda _: optimizer.update(g), jnp.arange(1)))


WAYS = {"eager": eager, "jit": jitted, "for_loop": looped}


# ---------------------------------------------------------------------------------------------------------- layouts


ALWAYS = [("whole from pieces", "eager", "auto"), ("one axis from two", "eager", "explicit")]
ALWAYS += [("other axes", "jit", "auto"), ("whole from pieces", "for_loop", "explicit")]
EVERY = [(layout, way, kind) for layout in LAYOUTS for way in WAYS for kind in KINDS]
CASES = [pytest.param(*case, "all", marks=[pytest.mark.slow] * (case not in ALWAYS)) for case in EVERY]
CASES += [pytest.param("pieces from whole", way, "auto", "plain", marks=pytest.mark.slow) for way in WAYS]


@pytest.mark.parametrize(("layout", "way", "kind", "options"), CASES)
def test_whatever_goes_in_comes_out_as_it_was(layout, way, kind, options):
    """Judged by the oracle, compiled once, with all single numbers on the mesh."""
    shape, theta, of_gradient = LAYOUTS[layout]
    mesh, options = mesh_of(*shape, kind=kind), OPTIONS[options]
    place, start = NamedSharding(mesh, theta), {"w": numbers(8, 4), "b": numbers(4, seed=1)}
    w = brainstate.ParamState(jax.device_put(start["w"], place))
    b = brainstate.ParamState(jnp.array(start["b"]))  # nobody has put it anywhere
    optimizer = Adadelta(**options).register_trainable_weights({"w": w, "b": b})
    grads = [{"w": numbers(8, 4, seed=k), "b": numbers(4, seed=k + 9)} for k in (2, 3, 4)]
    put = lambda g: {"w": jax.device_put(g["w"], NamedSharding(mesh, of_gradient)), "b": g["b"]}
    step = WAYS[way](optimizer)
    step(put(grads[0]))
    with Compilations() as after_the_first:
        for g in map(put, grads[1:]):
            step(g)
    assert after_the_first.count == 0
    for x in (w.value, *(tree["w"] for tree in optimizer.opt_state.value)):
        assert x.sharding.is_equivalent_to(place, 2), x.sharding
        assert way != "eager" or x.sharding == place
    whole = NamedSharding(mesh, P())
    assert all(x.sharding.is_equivalent_to(whole, x.ndim) for x in [b.value, *small_states(optimizer)])
    exact = {name: x for name, x in options.items() if name != "nonfinite"}
    after = {"w": w.value, "b": b.value}
    assert_near_exact(after, start, grads, form=PLAIN, lr=1.0, rho=0.9, eps=1e-6, **exact)


COLLECTIVES = {  # of the parameter, the gradient, the accumulators: what the devices say to each other
    "whole from pieces": (P(), P("x"), None, {"all-gather": 1}),  # the gradient has to be whole
    "whole": (P(), P(), None, {}),
    "pieces": (P("x"), P("x"), None, {}),
    "pieces from whole": (P("x"), P(), None, {}),
    "ZeRO-1": (P(), P(), P("x"), {"all-gather": 1}),  # the new parameter is put together
    "ZeRO-1 from pieces": (P(), P("x"), P("x"), {"all-gather": 1}),
    "ZeRO-1, skip": (P(), P("x"), P("x"), {"all-gather": 1, "all-reduce": 1}),  # old or new is chosen before that
}


@pytest.mark.parametrize("case", COLLECTIVES)
def test_no_array_is_gathered_that_need_not_be(case, monkeypatch):
    """Counted in what XLA makes of an update."""
    theta, of_gradient, of_memory, expected = COLLECTIVES[case]
    mesh, texts = mesh_of(8), []
    place = lambda spec: NamedSharding(mesh, spec)

    compiled_for = update.compiled_for

    def reading(layouts, donated):
        compiled = compiled_for(layouts, donated)
        read = lambda **arguments: texts.append(compiled.lower(**arguments).compile().as_text())
        return lambda **arguments: (read(**arguments), compiled(**arguments))[1]

    monkeypatch.setattr(update, "compiled_for", reading)
    w = brainstate.ParamState(jax.device_put(jnp.ones((64, 32)), place(theta)))
    options = {"nonfinite": "skip"} if "skip" in case else {}
    optimizer = Adadelta(accumulator_sharding=of_memory and place(of_memory), **options)
    optimizer.register_trainable_weights({"w": w})
    optimizer.update({"w": jax.device_put(jnp.ones((64, 32)), place(of_gradient))})
    (text,) = texts
    found = re.findall(r" (all-gather|all-reduce|reduce-scatter|collective-permute|all-to-all)(?:-start)?\(", text)
    assert {op: found.count(op) for op in found} == expected


def test_many_parameters_keep_their_layouts():
    """Equal ones share a program if they lie alike; the norm is that of all."""
    mesh = mesh_of(4, 2)
    places = [NamedSharding(mesh, spec) for spec in (P(), P("x"), P("y", "x"))]
    start = {f"w{k}": numbers(8, 4, seed=k) for k in range(36)}
    laid = {name: jax.device_put(x, places[k % 3]) for k, (name, x) in enumerate(start.items())}
    states = {name: brainstate.ParamState(x) for name, x in laid.items()}
    optimizer = Adadelta(grad_clip_norm=1.0).register_trainable_weights(states)
    grads = {name: jax.device_put(x + 1, places[k % 2]) for k, (name, x) in enumerate(start.items())}
    optimizer.update(grads)
    for k, (name, state) in enumerate(states.items()):
        for x in (state.value, *(tree[name] for tree in optimizer.opt_state.peek())):
            assert x.sharding == places[k % 3]
    alone = {name: brainstate.ParamState(jnp.array(x)) for name, x in start.items()}
    Adadelta(grad_clip_norm=1.0).register_trainable_weights(alone).update({k: x + 1 for k, x in start.items()})
    for name, state in states.items():  # norms are summed in another order
        np.testing.assert_allclose(state.value, alone[name].value, rtol=1e-6)


# ------------------------------------------------------------------------------------------------ accumulator_sharding


def bytes_on_each_device(arrays):
    found = dict.fromkeys(jax.devices(), 0)
    for x in arrays:
        for shard in x.addressable_shards:
            found[shard.device] += shard.data.nbytes
    return set(found.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["eager", "jit"])
def test_accumulators_in_pieces_under_whole_parameters(way, kind):
    """ZeRO-1: an eighth of the bytes; the numbers are those of the run without it, bit by bit."""
    mesh = mesh_of(8, kind=kind)
    whole, cut = NamedSharding(mesh, P()), NamedSharding(mesh, P("x"))
    start, runs = {"w": numbers(64, 32), "b": numbers(3)}, {}
    for sharding in (None, cut):
        states = {name: brainstate.ParamState(jax.device_put(x, whole)) for name, x in start.items()}
        optimizer = Adadelta(accumulator_sharding=sharding, weight_decay=0.1).register_trainable_weights(states)
        step = WAYS[way](optimizer)
        for k in range(3):
            step({"w": jax.device_put(numbers(64, 32, seed=k), whole), "b": numbers(3, seed=k)})
        assert all(s.value.sharding.is_equivalent_to(whole, s.value.ndim) for s in states.values())
        runs[sharding] = everything(optimizer)
        one = 64 * 32 * 4 if sharding is None else 64 * 32 * 4 // 8
        assert bytes_on_each_device(memory(optimizer)) == {2 * (one + 3 * 4)}  # what cannot be cut is whole
    same(runs[None], runs[cut])


def test_pieces_are_made_where_they_are_to_lie():
    """No device ever has a whole accumulator; that of a 16-bit parameter is never a whole float32 either."""
    mesh = mesh_of(8)
    w = brainstate.ParamState(jax.device_put(jnp.ones((1024, 64), jnp.bfloat16), NamedSharding(mesh, P())))
    made = []

    def spy(x):
        made.append(max(shard.data.size for shard in x.addressable_shards))
        return x

    zeros = jnp.zeros
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jnp, "zeros", lambda *args, **options: spy(zeros(*args, **options)))
        optimizer = Adadelta(accumulator_sharding=lambda name, shape: NamedSharding(mesh, P("x")))
        optimizer.register_trainable_weights({"w": w})
    assert max(made) == 1024 * 64 // 8
    assert {x.dtype for x in memory(optimizer)} == {jnp.dtype(jnp.float32)}
    assert bytes_on_each_device(memory(optimizer)) == {2 * 1024 * 64 * 4 // 8}


def cut_run(steps=2):
    mesh = mesh_of(8)
    cut = NamedSharding(mesh, P("x"))
    w = brainstate.ParamState(jax.device_put(jnp.ones(8), NamedSharding(mesh, P())))
    optimizer = Adadelta(lr=0.5, accumulator_sharding=cut).register_trainable_weights({"w": w})
    for _ in range(steps):
        optimizer.update({"w": jnp.ones(8)})
    return optimizer, cut


def loaded(optimizer, folder):
    again, _ = cut_run(0)
    again.load_state_dict(jax.tree.map(np.array, optimizer.state_dict()))
    again.param_states["w"].value = optimizer.param_states["w"].value
    return again


def through_orbax(optimizer, folder):
    checkpointer = pytest.importorskip("orbax.checkpoint").StandardCheckpointer()
    checkpointer.save(folder / "saved", optimizer.state_dict())
    checkpointer.wait_until_finished()
    again, _ = cut_run(0)
    again.load_state_dict(checkpointer.restore(folder / "saved", again.state_dict()))
    again.param_states["w"].value = optimizer.param_states["w"].value
    return again


COPIES = {
    "deepcopy": lambda optimizer, folder: copy.deepcopy(optimizer),
    "pickle": lambda optimizer, folder: pickle.loads(pickle.dumps(optimizer)),
    "load_state_dict": loaded,
    "Orbax": through_orbax,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", COPIES)
def test_the_layout_is_kept_by(way, tmp_path):
    optimizer, cut = cut_run()
    again = COPIES[way](optimizer, tmp_path)
    same(everything(again), everything(optimizer))
    for one in (optimizer, again):
        one.update({"w": jnp.ones(8)})
        assert all(x.sharding == cut for x in memory(one)) and one.accumulator_sharding == cut
        assert one.param_states["w"].value.sharding.spec == P()
    same(everything(again), everything(optimizer))


def test_a_pickle_is_read_where_its_devices_do_not_exist(tmp_path):
    optimizer, _ = cut_run()
    (tmp_path / "run").write_bytes(pickle.dumps(optimizer))
    code = """
import pickle, sys, jax, jax.numpy as jnp
optimizer = pickle.load(open(sys.argv[1], "rb"))
optimizer.update({"w": jnp.ones(8)})
print(jax.device_count(), optimizer.param_states["w"].value.tolist(), optimizer.accumulator_sharding)
"""
    run = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "run")]
    done = subprocess.run(run, env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True)
    optimizer.update({"w": jnp.ones(8)})
    assert done.stdout.strip() == f"1 {optimizer.param_states['w'].value.tolist()} None", done.stderr


BAD = {
    "no sharding": (lambda cut: 3, TypeError, "accumulator_sharding = 3 is not allowed"),
    "a class": (lambda cut: NamedSharding, TypeError, "is not allowed: it must be a jax.sharding.Sharding"),
    "gives no sharding": (lambda cut: lambda name, shape: "x", TypeError, r"accumulator_sharding\('w', \(6,\)\) gave"),
    "does not fit": (lambda cut: lambda name, shape: cut, ValueError, r"\('w', \(6,\)\) gave .* equal pieces"),
}


@pytest.mark.parametrize("kind", BAD)
def test_an_accumulator_sharding_that_cannot_be(kind):
    make, error, message = BAD[kind]
    w = brainstate.ParamState(jnp.ones(6))
    with pytest.raises(error, match=message):
        sharding = make(NamedSharding(mesh_of(8), P("x")))
        Adadelta(accumulator_sharding=sharding).register_trainable_weights({"w": w})


# ------------------------------------------------------------------------------------------------------------- moving


def run_of_two(mesh):
    place = NamedSharding(mesh, P("x"))
    states = {name: brainstate.ParamState(jax.device_put(numbers(8), place)) for name in "ab"}
    optimizer = Adadelta(lr=lambda step: 1 / (1 + step), weight_decay=0.1).register_trainable_weights(states)
    return optimizer, states


def test_a_run_moves_with_one_call():
    """To fewer devices, to one and back, with the compiled loop going on: the numbers are those of a run that stays."""
    straight, _ = run_of_two(mesh_of(8))
    moving, states = run_of_two(mesh_of(8))
    step = jitted(moving)
    places = [NamedSharding(mesh_of(4), P("x")), SingleDeviceSharding(jax.devices()[5]), NamedSharding(mesh_of(8), P())]
    for k, place in enumerate(places):
        g = {name: numbers(8, seed=k) for name in "ab"}
        straight.update(g), step(g)
        moving.move_to(place)
        for x in (*(s.value for s in states.values()), *memory(moving)):
            assert x.sharding == place
        if k != 1:
            whole = NamedSharding(place.mesh, P())
            assert all(x.sharding.is_equivalent_to(whole, x.ndim) for x in small_states(moving))
        straight.update(g), moving.update(g)
    step(g), straight.update(g)
    same(everything(moving), everything(straight))


@pytest.mark.parametrize("how", ["move_to", "load_state_dict"])
def test_all_else_comes_to_parameters_that_were_moved(how):
    straight, _ = run_of_two(mesh_of(8))
    moving, states = run_of_two(mesh_of(8))
    g = {name: numbers(8, seed=1) for name in "ab"}
    straight.update(g), moving.update(g)
    saved, place = moving.state_dict(), NamedSharding(mesh_of(2, devices=jax.devices()[3:5]), P("x"))
    for s in states.values():
        s.value = jax.device_put(s.value, place)
    before = everything(moving)
    with pytest.raises(ValueError, match=r"on the devices \[3, 4\] and accumulator .a..*move_to\(\) brings"):
        moving.update(g)
    same(everything(moving), before)
    moving.move_to() if how == "move_to" else moving.load_state_dict(saved)
    straight.update(g), moving.update(g)
    assert all(x.sharding == place for x in memory(moving))
    same(everything(moving), everything(straight))


def test_a_move_that_cannot_be_changes_nothing():
    moving, states = run_of_two(mesh_of(8))
    before, places = everything(moving), [x.sharding for x in memory(moving)]
    for bad in (NamedSharding(mesh_of(3), P("x")), lambda name, shape: NamedSharding(mesh_of(3), P("x")), 7):
        with pytest.raises((TypeError, ValueError), match=r"sharding( = |\('a').*(is not allowed|equal pieces)"):
            moving.move_to(bad)
    same(everything(moving), before)
    assert [x.sharding for x in memory(moving)] == places
    with pytest.raises(TypeError, match="a run cannot be moved inside jit"):
        brainstate.transform.jit(lambda: moving.move_to())()


def test_parameters_that_were_laid_out_after_registration():
    """As many programs do: the optimizer sees it at the next update outside of a trace."""
    mesh = mesh_of(8)
    w = brainstate.ParamState(jnp.array(numbers(8)))
    optimizer = Adadelta().register_trainable_weights({"w": w})
    w.value = jax.device_put(w.value, NamedSharding(mesh, P("x")))
    optimizer.update({"w": jax.device_put(numbers(8), NamedSharding(mesh, P()))})
    assert all(x.sharding == NamedSharding(mesh, P("x")) for x in (w.value, *memory(optimizer)))
    with Compilations() as after_the_first:
        optimizer.update({"w": jax.device_put(numbers(8), NamedSharding(mesh, P()))})
    assert after_the_first.count == 0


# ---------------------------------------------------------------------------------------------------------- shard_map

AXES = {"one name": "x", "a tree": {"w": "x", "b": ()}, "a tuple": {"w": ("x",), "b": ()}}


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("kind", AXES)
def test_the_norm_inside_shard_map_is_that_of_the_whole(kind, check):
    """Judged by the oracle, beside the whole run; a parameter that is not cut counts once."""
    start, g = ({"w": numbers(16, seed=k), "b": numbers(3, seed=k + 1)} for k in (0, 5))
    if kind == "one name":
        del start["b"], g["b"]
    spec = {"w": P("x"), "b": P()}
    spec = {name: spec[name] for name in start}

    def one(theta, g):
        after = transform.step(theta, g, transform.start(theta), 1.0, Options(grad_clip_norm=1.0), axis_name=AXES[kind])
        return after.theta

    mapped = jax.shard_map(one, mesh=mesh_of(8), in_specs=(spec, spec), out_specs=spec, check_vma=check)
    after = jax.jit(mapped)(start, g)
    assert_near_exact(after, start, [g], form=PLAIN, lr=1.0, rho=0.9, eps=1e-6, grad_clip_norm=1.0)


def test_a_norm_inside_shard_map_needs_to_be_told_of_what():
    theta = {"w": jnp.ones(8)}
    at_start = lambda theta: (theta, theta, transform.start(theta), 1.0)
    step = lambda theta, **how: transform.step(*at_start(theta), Options(**options), **how).theta
    mapped = lambda f: jax.shard_map(f, mesh=mesh_of(8), in_specs=P("x"), out_specs=P("x"), check_vma=False)(theta)
    options = {"grad_clip_norm": 1.0}
    with pytest.raises(ValueError, match="grad_clip_norm needs the norm of the whole.* pass axis_name, the axes"):
        mapped(step)
    mapped(lambda theta: step(theta, axis_name=()))  # each device has all of it
    options = {}
    mapped(step)  # nothing else needs to know


NEED_ALL = {"norm": {"grad_clip_norm": 1.0}, "skip": {"nonfinite": "skip"}}


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("kind", NEED_ALL)
def test_the_class_refuses_what_needs_the_whole_of_a_piece(kind, check):
    """And nothing has changed: neither the model nor the optimizer, which goes on outside."""
    mesh = mesh_of(8)
    w = brainstate.ParamState(jax.device_put(numbers(8), NamedSharding(mesh, P("x"))))
    optimizer = Adadelta(**NEED_ALL[kind]).register_trainable_weights({"w": w})
    trained = dict.fromkeys([w, optimizer.opt_state], P("x"))
    before, g = everything(optimizer), {"w": jnp.ones(8)}
    inside = brainstate.transform.shard_map(
        optimizer.update, mesh, (P("x"),), P(), state_in_specs=trained, state_out_specs=trained, check_vma=check
    )
    name = "grad_clip_norm" if kind == "norm" else "nonfinite='skip'"
    with pytest.raises(ValueError, match=rf"^{name} must know the whole .* piece of \['w'\]: call update\(\) outside"):
        inside(g)
    same(everything(optimizer), before)
    optimizer.update(g)


def test_the_class_goes_on_inside_shard_map_where_all_is_whole_or_nothing_has_to_be():
    """Where JAX follows which arrays differ from device to device, it is known which are whole."""
    start, g = {"w": numbers(8)}, {"w": numbers(8, seed=1)}
    for options, spec, check in (({"grad_clip_norm": 1.0}, P(), True), ({}, P("x"), False), ({}, P(), False)):

        def one(theta, g, options=options):
            w = brainstate.ParamState(theta["w"])
            Adadelta(**options).register_trainable_weights({"w": w}).update(g)
            return {"w": w.value}

        mapped = jax.shard_map(one, mesh=mesh_of(8), in_specs=spec, out_specs=spec, check_vma=check)
        assert_near_exact(jax.jit(mapped)(start, g), start, [g], form=PLAIN, lr=1.0, rho=0.9, eps=1e-6, **options)
