// A correct Adadelta that adadelta-conformance can judge: adadelta-conformance 'run:node adadelta.js'
// Put yours into start() and step(). Messages are lines of JSON; whatever else you print must go to stderr.
const runs = {};
const arrays = { float32: Float32Array, float64: Float64Array };

function number(text) { // a hexadecimal number, as C's %a writes it
  const m = /^(-?)0x([01])\.?([0-9a-f]*)p([+-]\d+)$/.exec(text);
  if (!m) return Number(text.replace("inf", "Infinity")); // nan or inf
  const bits = m[2] + m[3];
  let x = 0;
  for (const digit of bits) x = x * 16 + parseInt(digit, 16);
  const power = Number(m[4]) - 4 * m[3].length, half = Math.trunc(power / 2); // 2 ** power alone may underflow
  return (m[1] ? -x : x) * 2 ** half * 2 ** (power - half);
}

const read = row => arrays[row.dtype].from(row.data, number);
const written = tree =>
  Object.entries(tree).map(([name, x]) => ({ name, data: Array.from(x, y => Number.isFinite(y) ? y : String(y)) }));

function start(params, options) {
  const run = { theta: {}, e_g2: {}, e_delta2: {} };
  for (const [key, value] of Object.entries(options)) run[key] = number(value);
  for (const row of params) {
    run.theta[row.name] = read(row);
    run.e_g2[row.name] = new arrays[row.dtype](row.data.length); // zeros
    run.e_delta2[row.name] = new arrays[row.dtype](row.data.length);
  }
  return run;
}

function step(run, grads) {
  const { rho, eps } = run;
  for (const row of grads) { // by name: their order varies
    const g = read(row), theta = run.theta[row.name], e_g2 = run.e_g2[row.name], e_delta2 = run.e_delta2[row.name];
    for (let k = 0; k < g.length; k++) {
      e_g2[k] = rho * e_g2[k] + (1 - rho) * g[k] * g[k];
      const delta = -Math.sqrt(e_delta2[k] + eps) / Math.sqrt(e_g2[k] + eps) * g[k];
      e_delta2[k] = rho * e_delta2[k] + (1 - rho) * delta * delta;
      theta[k] += run.lr * delta;
    }
  }
}

const answers = {
  hello: () => ({ name: "javascript", supports: ["float64"], accumulators: true, set_lr: true }),
  start: m => { runs[m.run] = start(m.params, m.options); return {}; },
  step: m => { step(runs[m.run], m.grads); return {}; },
  params: m => ({ params: written(runs[m.run].theta) }),
  accumulators: m => ({ e_g2: written(runs[m.run].e_g2), e_delta2: written(runs[m.run].e_delta2) }),
  set_lr: m => { runs[m.run].lr = number(m.lr); return {}; },
};

require("readline").createInterface({ input: process.stdin }).on("line", line => {
  const message = JSON.parse(line);
  let answer;
  try { answer = answers[message.do](message); } catch (error) { answer = { error: String(error) }; }
  process.stdout.write(JSON.stringify(answer) + "\n");
});
