"""Mistakes that mypy must find: where it does not, it says that a comment here is not needed. Nothing of this runs."""

from braintools_adadelta import Adadelta, LRScheduler, scale_by_adadelta
from braintools_adadelta.conformance.judge import Case, misses
from braintools_adadelta.interop import to_torch
from braintools_adadelta.oracle.exact import step
from braintools_adadelta.oracle.ulp import ulp


def mistakes(optimizer: Adadelta, case: Case) -> None:
    Adadelta(rho="0.9")  # type: ignore[arg-type]
    Adadelta(beta=0.9)  # type: ignore[call-arg]
    Adadelta(grad_clip_norm="1")  # type: ignore[arg-type]
    optimizer.rho = "0.9"  # type: ignore[assignment]
    optimizer.eps = None  # type: ignore[assignment]
    optimizer.rh = 0.9  # type: ignore[attr-defined]
    print(optimizer.epsilon)  # type: ignore[attr-defined]
    optimizer.update()  # type: ignore[call-arg]
    optimizer.step({}, True)  # type: ignore[call-arg]
    optimizer.state_dict().clip()  # type: ignore[attr-defined]
    optimizer.current_lr = "0.1"  # type: ignore[assignment]
    optimizer.add_param_group({}, lr="0.1")  # type: ignore[arg-type]
    LRScheduler("0.1")  # type: ignore[arg-type]
    LRScheduler(0.1).step("1")  # type: ignore[arg-type]
    scale_by_adadelta("0.9")  # type: ignore[arg-type]
    to_torch(optimizer, {}, "w")  # type: ignore[arg-type]
    step(1, 2, 3, 4)  # type: ignore[call-arg]
    ulp(1, "float32")  # type: ignore[arg-type]
    misses(object(), case)  # type: ignore[arg-type]
