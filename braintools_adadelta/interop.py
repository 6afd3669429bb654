"""Moving the memory of Adadelta to and from other frameworks; each is imported only by the function that needs it.

What moves are the two accumulators of each parameter and the step count. Parameters and learning rates are the caller's.
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from .leaf import bare, is_quantity
from .names import keys_of, like, name_of
from .saving import leaves_by_name, plain, snapshot, with_leaves

if TYPE_CHECKING:
    from .optimizer import Adadelta

__all__ = ["from_optax", "from_torch", "to_braintools", "to_optax", "to_torch"]


def _trees(optimizer: "Adadelta") -> dict[str, Any]:
    """Return {field: {name: tree}}: the accumulators, each built as the value of its parameter is."""
    values = {name: state.value for name, state in optimizer.param_states.items()}
    saved = snapshot(optimizer)["opt_state"]
    return {field: with_leaves(values, tree) for field, tree in saved.items()}


def _load(optimizer: "Adadelta", e_g2: Any, e_delta2: Any, step_count: int) -> None:
    """Load accumulators by name. What does not fit is refused, and nothing is changed."""
    memory = {"e_g2": leaves_by_name(plain(e_g2)), "e_delta2": leaves_by_name(plain(e_delta2))}
    state = snapshot(optimizer) | {"opt_state": memory, "step_count": step_count}
    del state["lr_scheduler"]  # what is read at the step count is read at the new one
    optimizer.load_state_dict(state)


def to_optax(optimizer: "Adadelta") -> Any:
    """Return the accumulators as optax's ``ScaleByAdaDeltaState``, for parameters ``{name: value}``.

    Examples
    --------
    Go on with optax where `optimizer` stands::

        tx = optax.scale_by_adadelta(rho, eps)
        params = {name: state.value for name, state in optimizer.param_states.items()}
        updates, state = tx.update(grads, to_optax(optimizer), params)
    """
    import optax

    trees = _trees(optimizer)
    return optax.ScaleByAdaDeltaState(e_g=trees["e_g2"], e_x=trees["e_delta2"])


def from_optax(optimizer: "Adadelta", state: Any, step_count: int = 0) -> None:
    """Go on where an optax state stands.

    Parameters
    ----------
    optimizer : Adadelta
        With the same parameters registered, under the same names.
    state : ScaleByAdaDeltaState
        Or a chain's state with one in it.
    step_count : int, default 0
        The number of updates made, which the accumulators do not tell.

    Raises
    ------
    ValueError
        If there is none in it, or more than one, or it does not fit. Nothing is changed then.
    """
    is_memory = lambda x: hasattr(x, "e_g") and hasattr(x, "e_x")
    found = [x for x in jax.tree.leaves(state, is_leaf=is_memory) if is_memory(x)]
    if len(found) != 1:
        raise ValueError(f"there are {len(found)} states with e_g and e_x in {state!r}: pass one with exactly one.")
    _load(optimizer, found[0].e_g, found[0].e_x, step_count)


def to_torch(optimizer: "Adadelta", state_dict: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return the state dict of a ``torch.optim.Adadelta``, with the accumulators of `optimizer` in it.

    Parameters
    ----------
    optimizer : Adadelta
        Ours.
    state_dict : dict
        That of the torch optimizer, whose groups and hyperparameters are kept.
    names : list of str
        The name in ours of each parameter of the torch optimizer, in its order. Shapes must agree: torch's ``Linear``
        keeps its weight transposed, so transpose it before.
    """
    import torch

    memory = {field: leaves_by_name(plain(tree)) for field, tree in snapshot(optimizer)["opt_state"].items()}
    tensor = lambda field, name: torch.from_numpy(np.array(memory[field][name]))
    step = float(optimizer.step_count.value)
    state = {
        k: {
            "step": torch.tensor(step),
            "square_avg": tensor("e_g2", name),
            "acc_delta": tensor("e_delta2", name),
        }
        for k, name in enumerate(names)
    }
    return state_dict | {"state": state}


def from_torch(optimizer: "Adadelta", state_dict: dict[str, Any], names: list[str]) -> None:
    """Go on where a ``torch.optim.Adadelta`` stands; arguments as in :func:`to_torch`.

    Raises
    ------
    ValueError
        If an accumulator is missing or does not fit. Nothing is changed then.
    """
    state = state_dict["state"]
    missing = [name for k, name in enumerate(names) if not {"square_avg", "acc_delta"} <= state.get(k, {}).keys()]
    if missing:
        raise ValueError(f"the torch state has no square_avg and acc_delta for {missing}: take a step there first.")
    array = lambda field: {name: state[k][field].detach().cpu().numpy() for k, name in enumerate(names)}
    steps = max((int(state[k]["step"]) for k in range(len(names))), default=0)
    _load(optimizer, array("square_avg"), array("acc_delta"), steps)


def to_braintools(optimizer: "Adadelta", state_dict: dict[str, Any]) -> dict[str, Any]:
    """Return the state dict of a ``braintools.optim.Adadelta``, with the memory of `optimizer` in it.

    Parameters
    ----------
    optimizer : Adadelta
        Ours, without added groups: theirs are trained by Adam.
    state_dict : dict
        That of the other optimizer, with the same parameters registered. It gives the form.
    """
    if len(optimizer.param_groups) > 1:
        raise ValueError("the optimizer has added groups: braintools would train them by Adam, which has other memory.")
    saved = snapshot(optimizer)
    memory = {"e_g": leaves_by_name(plain(saved["opt_state"]["e_g2"])), "e_x": leaves_by_name(plain(saved["opt_state"]["e_delta2"]))}

    def leaf(path: Any, old: Any) -> Any:
        _, field, *name = keys_of(path)
        new = saved["step_count"] if field == "count" else memory[field][name_of(name)]
        return like(old, [jnp.asarray(new, bare(old).dtype)])

    chain = jax.tree.map_with_path(leaf, state_dict["opt_state"], is_leaf=is_quantity)
    same = {"step_count": int(saved["step_count"]), "lr": float(saved["lr"]), "base_lr": float(saved["base_lr"])}
    return state_dict | same | {"opt_state": chain}
