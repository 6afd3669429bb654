"""Ways to train that programs know: each is a loop around update(), judged by the plain loop or by the exact run."""

import gc
import os
import threading

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare_with_oracle import assert_near_exact
from jax.sharding import Mesh, PartitionSpec

from braintools_adadelta import Adadelta
from braintools_adadelta.oracle.bounds import PLAIN

OPTIONS = {"rho": 5 / 8, "eps": 1.0}
jit, for_loop, cond = (getattr(brainstate.transform, name) for name in ("jit", "for_loop", "cond"))


def state(*values):
    return brainstate.ParamState(jnp.array(values))


def made(states, **options):
    return Adadelta(**(OPTIONS | options)).register_trainable_weights(states)


def near(got, start, grads, **options):
    assert_near_exact(got, start, grads, form=PLAIN, **(OPTIONS | options))


def test_accumulated_gradients():
    w = state(4.0)
    ours, held = made({"w": w}), brainstate.ShortTermState(jnp.zeros(1))

    @jit
    def train(k, g):
        held.value = held.value + g / 2
        full = lambda: (ours.update({"w": held.value}), setattr(held, "value", held.value * 0))[1]
        cond(k % 2 == 1, full, lambda: None)

    for k, g in enumerate([8.0, 4.0, 1.0, -3.0]):
        train(k, jnp.array([g]))
    near(w.value, [4.0], [[6.0], [-1.0]])
    assert ours.step_count.value == 2


def test_a_layer_that_is_frozen_and_then_trained():
    a, b = state(4.0), state(1.0)
    ours, g = made({"a": a}), {"a": jnp.array([8.0]), "b": jnp.array([3.0])}
    ours.update(g)
    ours.register_trainable_weights({"a": a, "b": b})  # from here on
    ours.update(g)
    near(a.value, [4.0], [[8.0], [8.0]])
    near(b.value, [1.0], [[3.0]])
    ours.add_param_group({"a": a}, lr=0.0)  # and frozen again
    before = a.value
    ours.update(g)
    assert a.value == before and b.value != 1.0


def test_tied_weights_get_the_sum_of_their_gradients():
    w = state(4.0)
    tied, ours = {"encoder": w, "decoder": w}, made({"encoder": w, "decoder": w})
    grads = brainstate.transform.grad(lambda: (w.value * w.value).sum(), tied)()
    ours.update(grads)
    near(w.value, [4.0], [[8.0]])
    assert len(ours.param_states) == 1


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_a_layer_that_is_added_in_mid_training(compiled):
    a, b, g = state(4.0), state(1.0), {"a": jnp.array([8.0]), "b": jnp.array([3.0])}
    ours = made({"a": a})
    step = jit(lambda: ours.update(g)) if compiled else lambda: ours.update(g)
    step()
    ours.register_trainable_weights({"b": b})
    step()
    near(a.value, [4.0], [[8.0], [8.0]])
    near(b.value, [1.0], [[3.0]])


def test_an_ensemble_by_vmap():
    """Each member has an optimizer of its own inside; what comes out is that of training them one by one."""
    starts, grads = jnp.array([[4.0], [2.0], [-1.0]]), jnp.array([[8.0], [1.0], [3.0]])

    def member(start, g):
        w = brainstate.ParamState(start)
        ours = made({"w": w}, grad_clip_norm=2.0)
        for _ in range(2):
            ours.update({"w": g})
        return w.value

    for got, start, g in zip(jax.vmap(member)(starts, grads), starts, grads, strict=True):
        near(got, start.tolist(), [g.tolist()] * 2, grad_clip_norm=2.0)


def test_inside_shard_map():
    """Without a clip by norm no device needs what another has."""

    def member(start):
        w = brainstate.ParamState(start)
        made({"w": w}).update({"w": 2 * start})
        return w.value

    spec = PartitionSpec("x")
    mapped = jax.shard_map(member, mesh=Mesh(np.array(jax.devices()[:1]), "x"), in_specs=spec, out_specs=spec)
    near(mapped(jnp.array([4.0, 1.0])), [4.0, 1.0], [[8.0, 2.0]])


def test_gradients_through_checkpoint():
    w = state(4.0)
    ours = made({"w": w})
    loss = jax.checkpoint(lambda x: (x**2).sum())
    ours.update(brainstate.transform.grad(lambda: loss(w.value), {"w": w})())
    near(w.value, [4.0], [[8.0]])


def test_conditions_and_loops_around_an_update():
    w = state(4.0)
    ours, g = made({"w": w}), {"w": jnp.array([8.0])}
    for taken in (True, False):
        jit(lambda taken: cond(taken, lambda: ours.update(g), lambda: None))(taken)
    for_loop(lambda _: ours.update(g), jnp.arange(2))
    brainstate.transform.while_loop(lambda k: k < 1, lambda k: (ours.update(g), k + 1)[1], 0)
    near(w.value, [4.0], [[8.0]] * 4)
    assert ours.step_count.value == 4


def test_threads_that_train_optimizers_of_their_own():
    ends = {}

    def train(k):
        w = state(4.0)
        ours = made({"w": w})
        for _ in range(20):
            ours.update({"w": jnp.array([float(k + 1)])})
        ends[k] = w.value

    threads = [threading.Thread(target=train, args=[k]) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(4):
        near(ends[k], [4.0], [[float(k + 1)]] * 20)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:os.fork")  # JAX has threads by now; the child uses none of them
def test_a_fork_can_look_at_an_optimizer():
    ours = made({"w": state(4.0)})
    ours.update({"w": jnp.array([8.0])})
    pid = os.fork()
    if not pid:
        os._exit(0 if repr(ours).startswith("<Adadelta(lr=1.0") else 1)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("lr", [0.5, lambda step: 1 / (1 + step)], ids=["number", "function"])
def test_thousands_of_updates_keep_no_buffer(lr):
    ours, g = made({"w": state(4.0, 1.0)}, lr=lr), {"w": jnp.ones(2)}
    counts = []
    for k in range(2001):
        ours.update(g)
        ours.current_lr, ours.state_dict()
        if k % 1000 == 0:
            gc.collect()
            counts.append(len(jax.live_arrays()))
    assert counts[1] == counts[2]


def test_cells_of_a_notebook_that_are_run_again():
    def model_cell():
        return state(4.0)

    def optimizer_cell(w):
        return made({"w": w}, lr=braintools.optim.StepLR(1.0, 2))

    w = model_cell()
    for _ in range(2):  # the same model: its cell is not run again
        ours = optimizer_cell(w)
        ours.register_trainable_weights({"w": w})
        ours.update({"w": jnp.array([8.0])})
    assert ours.step_count.value == 1
    w = model_cell()
    with pytest.raises(ValueError, match="make a new optimizer"):
        ours.register_trainable_weights({"w": w})
    optimizer_cell(w).update({"w": jnp.array([8.0])})
    near(w.value, [4.0], [[8.0]])


@pytest.mark.parametrize("make", [lambda: 0.5, lambda: lambda step: 0.5**step, lambda: braintools.optim.StepLR(1.0, 1)])
def test_the_lr_can_be_logged_and_plotted(make):
    ours, log = made({"w": state(4.0)}, lr=make()), []
    for _ in range(3):
        ours.update({"w": jnp.array([8.0])})
        ours.lr_scheduler.step()
        log.append(ours.current_lr)
        f"{ours.current_lr:.3f}"
    assert np.asarray(log).dtype == float and len(log) == 3
