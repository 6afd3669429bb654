/* The arithmetic of the playground, in double precision: four optimizers and three losses of two parameters.
   It touches no page, so that a test can run it against the exact vectors of the conformance kit. */
(function (root) {
  "use strict";

  const zeros = (theta) => theta.map(() => 0);

  /* State before the first step. m and v belong to momentum and Adam. */
  const start = (theta) => ({ t: 0, theta: theta.slice(), e_g2: zeros(theta), e_delta2: zeros(theta), m: zeros(theta), size: zeros(theta) });

  /* Clause X1: the largest number whose square is finite stands for larger ones. */
  const LARGEST = 1.3407807929942596e154;
  const saturate = (g) => Math.max(-LARGEST, Math.min(LARGEST, g));

  /* A rule takes one parameter's gradient and memory; it returns its step, without lr where E4 applies it. */
  const RULES = {
    Adadelta(g, memory, { rho, eps }) {
      g = saturate(g);
      const e_g2 = rho * memory.e_g2 + (1 - rho) * g * g;
      const size = Math.sqrt(memory.e_delta2 + eps) / Math.sqrt(e_g2 + eps);
      const delta = -size * g;
      return { delta, size, e_g2, e_delta2: rho * memory.e_delta2 + (1 - rho) * delta * delta };
    },
    SGD(g) {
      return { delta: -g, size: 1 };
    },
    RMSProp(g, memory, { rho, eps }) {
      const e_g2 = rho * memory.e_g2 + (1 - rho) * g * g;
      const size = 1 / Math.sqrt(e_g2 + eps);
      return { delta: -size * g, size, e_g2 };
    },
    Adam(g, memory, { eps }) {
      const m = 0.9 * memory.m + 0.1 * g;
      const e_g2 = 0.999 * memory.e_g2 + 0.001 * g * g;
      const size = 1 / (Math.sqrt(e_g2 / (1 - Math.pow(0.999, memory.t))) + eps);
      return { delta: (-size * m) / (1 - Math.pow(0.9, memory.t)), size, e_g2, m };
    },
  };

  /* One step of `rule` for all parameters; the state before stays as it is. */
  function step(rule, state, gradient, options) {
    const next = { t: state.t + 1, theta: [], e_g2: [], e_delta2: [], m: [], size: [] };
    state.theta.forEach((theta, k) => {
      const memory = { t: next.t, e_g2: state.e_g2[k], e_delta2: state.e_delta2[k], m: state.m[k] };
      const after = RULES[rule](gradient[k], memory, options);
      next.theta.push(theta + options.lr * after.delta);
      next.e_g2.push(after.e_g2 ?? 0);
      next.e_delta2.push(after.e_delta2 ?? 0);
      next.m.push(after.m ?? 0);
      next.size.push(after.size);
    });
    return next;
  }

  /* Losses: the value, the gradient, a start, and the part of the plane that is drawn (x from, x to, y from, y to). */
  const valley = (condition) => ({
    value: ([x, y]) => (x * x + condition * y * y) / 2,
    gradient: ([x, y]) => [x, condition * y],
    start: [-1, 0.9],
    view: [-1.3, 0.7, -1, 1],
    minimum: [0, 0],
  });
  const rosenbrock = {
    value: ([x, y]) => (1 - x) ** 2 + 100 * (y - x * x) ** 2,
    gradient: ([x, y]) => [-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)],
    start: [-1.2, 1],
    view: [-2, 2, -1, 3],
    minimum: [1, 1],
  };
  const powers = [[1.5, 1], [2.25, 2], [2.625, 3]];
  const beale = {
    value: ([x, y]) => powers.reduce((sum, [c, n]) => sum + (c - x + x * y ** n) ** 2, 0),
    gradient: ([x, y]) =>
      powers.reduce(
        ([gx, gy], [c, n]) => {
          const r = 2 * (c - x + x * y ** n);
          return [gx + r * (y ** n - 1), gy + r * x * n * y ** (n - 1)];
        },
        [0, 0],
      ),
    start: [1, 1.5],
    view: [-1, 4, -2, 2],
    minimum: [3, 0.5],
  };
  const loss = (name, condition) => ({ valley: valley(condition), rosenbrock, beale })[name];

  /* The whole descent: the states, from the start to `steps` steps later, or to the last that is finite. */
  function descend(rule, f, theta, options, steps) {
    const states = [start(theta)];
    for (let t = 0; t < steps; t++) {
      const next = step(rule, states[t], f.gradient(states[t].theta), options);
      if (!next.theta.every(Number.isFinite)) break;
      states.push(next);
    }
    return states;
  }

  const api = { RULES, start, step, loss, descend };
  if (typeof module === "object") module.exports = api;
  root.adadelta = api;
})(typeof globalThis === "object" ? globalThis : this);
