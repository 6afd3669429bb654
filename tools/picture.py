"""Draw the picture of the README and the front page, docs/_static/valley.svg: ``python tools/picture.py``

Four optimizers in the valley of chapter 1, and the step sizes of Adadelta in it. Letters and axes are gray, so that
they can be read on white and on black: a picture in a README cannot know the page's colours.
"""

import io
import re
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parent.parent
CURVATURE = np.array([1.0, 100.0])
GRAY = "#808080"
TITLE = (
    "Left: paths in a valley that is a hundred times as curved in one direction as in the other. SGD goes straight down"
    " the steep side and then creeps; Adadelta goes diagonally to the minimum. Right: the step sizes of Adadelta for"
    " both directions grow from 0.003 and 0.00003 to 1 and to the edge of stability, 0.02."
)


def descend(name, steps, rho=0.9, eps=1e-6):
    theta, e_g2, e_delta2, path, sizes = np.array([-1.0, 0.9]), np.zeros(2), np.zeros(2), [], []
    for _ in range(steps):
        g = CURVATURE * theta
        e_g2 = rho * e_g2 + (1 - rho) * g * g
        size = np.sqrt(e_delta2 + eps) / np.sqrt(e_g2 + eps) if name == "Adadelta" else np.full(2, 0.01)
        e_delta2 = rho * e_delta2 + (1 - rho) * (size * g) ** 2
        path.append(theta)
        sizes.append(size)
        theta = theta - size * g
    return np.array(path), np.array(sizes)


def draw():
    colors = {key: GRAY for key in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")}
    with plt.style.context([ROOT / "nbs/book.mplstyle", colors]):
        fig, (plane, life) = plt.subplots(1, 2, figsize=(8, 3.4))
        x, y = np.meshgrid(np.linspace(-1.1, 0.3, 80), np.linspace(-0.3, 1, 80))
        plane.contour(x, y, (x**2 + 100 * y**2) / 2, levels=np.logspace(-2, 2, 9), colors=GRAY, linewidths=0.5)
        for name, style in (("SGD, lr 0.01", "--"), ("Adadelta", "-")):
            plane.plot(*descend(name, 450)[0].T, style, label=name)
        plane.set(xlabel="flat direction", ylabel="steep direction", title="a valley")
        plane.legend(loc="upper right")
        sizes = descend("Adadelta", 3000)[1]
        t = np.arange(1, 3001)
        life.loglog(t, sizes[:, 0], color="#D55E00", label="flat")
        life.loglog(t, sizes[:, 1], "--", color="#009E73", label="steep")
        life.axhline(0.02, color=GRAY, ls=":", lw=1)
        life.set(xlabel="step", title="step size of Adadelta")
        life.legend(loc="upper left")
        page = io.StringIO()
        fig.savefig(page, format="svg", metadata={"Date": None})
    svg = page.getvalue()
    svg = svg[svg.index("<svg") :]
    return re.sub(r"(<svg[^>]*)>", rf'\1 class="valley" role="img"><title>{TITLE}</title>', svg, count=1)


if __name__ == "__main__":
    target = ROOT / "docs/_static/valley.svg"
    target.write_text(draw(), "utf-8")
    print(target)
