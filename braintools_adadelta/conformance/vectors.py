"""Read vectors.json: training runs with their exact answers, for implementations in any language."""

import json
from importlib.resources import files
from typing import Any

import numpy as np

from braintools_adadelta.conformance.judge import Case

FIELDS = ("e_g2", "e_delta2", "theta")


def load() -> list[dict[str, Any]]:
    """Return the vectors."""
    return json.loads((files(__package__) / "vectors.json").read_text("utf-8"))["vectors"]


def numbers(x: Any) -> list[float]:
    """Return an array as a list of doubles in C order. A complex number gives its real part first."""
    x = np.ravel(x)
    return [float(number) for number in (x.view(x.real.dtype) if np.iscomplexobj(x) else x)]


def twice(key: str, x: Any) -> dict[str, Any]:
    """Return numbers under two keys: hexadecimal, and decimal in as many digits as make them exact."""
    return {key: hexadecimal(x), f"{key}_decimal": x}


def hexadecimal(x: Any) -> Any:
    """Return a number, or the numbers in a dict or list, as C's %a writes them."""
    if isinstance(x, dict):
        return {name: hexadecimal(row) for name, row in x.items()}
    return [float(y).hex() for y in x] if isinstance(x, list) else float(x).hex()


def read(row: list[str], dtype: str) -> np.ndarray:
    """Return the flat array with these hexadecimal numbers."""
    x = np.array([float.fromhex(number) for number in row])
    return (x.view(complex) if np.dtype(dtype).kind == "c" else x).astype(dtype)


def is_complex(vector: dict[str, Any]) -> bool:
    return vector["dtype"].startswith("complex")


def case(vector: dict[str, Any]) -> Case:
    """Return the training run of a vector as arrays of numpy."""
    shapes, dtype = vector["shapes"], vector["dtype"]
    tree = lambda rows: {name: read(row, dtype).reshape(shapes[name]) for name, row in rows.items()}
    lrs = [float.fromhex(row["lr"]) if "lr" in row else None for row in vector["steps"]]
    options = {name: float.fromhex(x) for name, x in vector["options"].items()}
    return Case(tree(vector["params"]), [tree(row["g"]) for row in vector["steps"]], options, lrs)


def offered(implementation: Any, vector: dict[str, Any], run: Case) -> bool:
    """Say whether an implementation has all that a vector needs."""
    shapes, offers = vector["shapes"].values(), {"float32", "lr", "rho", "eps", *implementation.supports}
    needs = {
        "lr": run.options["lr"] != 1 or any(lr is not None for lr in run.lrs),
        "scalars": [] in shapes,
        "empty": any(0 in shape for shape in shapes),
    }
    return (
        {vector["dtype"], *run.options} <= offers
        and not any(needs[name] for name in implementation.lacks)
        and (implementation.sets_lr or all(lr is None for lr in run.lrs))
    )


def wrong(implementation: Any, vector: dict[str, Any]) -> tuple[Any, ...] | None:
    """Return the first error of `implementation` in a vector: (step, field, parameter, k, got, wanted, within), or ().

    Return None if the vector needs something that it does not offer.
    """
    run = case(vector)
    if not offered(implementation, vector, run):
        return None
    try:
        found = first_wrong(implementation, vector, run)
        if found and is_complex(vector):  # the gradient may also be the conjugate, as in JAX
            grads = [{name: np.conj(g) for name, g in tree.items()} for tree in run.grads]
            found = first_wrong(implementation, vector, run._replace(grads=grads)) and found
        return found
    except Exception as error:
        return (0, type(error).__name__, str(error))


def first_wrong(implementation: Any, vector: dict[str, Any], run: Case) -> tuple[Any, ...]:
    """Take the steps of `run` and return the first number that is not within its bound, or ()."""
    with np.errstate(all="ignore"):
        watched = [(x.copy(), x, name) for name, x in run.params.items()]
        handle = implementation.start({name: copy for copy, _, name in watched}, **run.options)
        for t, (row, grads, lr) in enumerate(zip(vector["steps"], run.grads, run.lrs, strict=True)):
            if lr is not None:
                handle = implementation.set_lr(handle, lr)
            handed = [(g.copy(), g, name) for name, g in grads.items()]
            watched += handed
            handle = implementation.step(handle, {name: copy for copy, _, name in handed})
            for copy, x, name in watched:
                if copy.tobytes() != x.tobytes():
                    return t + 1, "given", name
            shown = {"theta": implementation.params(handle)}
            # Frameworks keep the averages of complex parameters in different forms.
            pair = None if is_complex(vector) else implementation.accumulators(handle)
            if pair is not None:
                shown |= {"e_g2": pair[0], "e_delta2": pair[1]}
            for field in (f for f in FIELDS if f in shown):
                for name, wanted in row[field].items():
                    got: Any = np.asarray(shown[field][name])
                    if got.shape != tuple(vector["shapes"][name]):
                        return t + 1, field, name, "shape", got.shape
                    got = [part for x in got.flat for part in ((x.real, x.imag) if np.iscomplexobj(got) else (x,))]
                    for k, (x, want, within) in enumerate(zip(got, wanted, row[f"{field}_within"][name], strict=True)):
                        if not abs(float(x) - float.fromhex(want)) <= float(within):
                            return t + 1, field, name, k, float(x), float.fromhex(want), float(within)
    return ()
