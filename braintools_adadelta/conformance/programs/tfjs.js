// tf.train.adadelta of @tensorflow/tfjs for adadelta-conformance, in float32, on its CPU backend.
console.log = console.warn = console.info = () => {}; // stdout is for messages
const tf = require("@tensorflow/tfjs");
const runs = {};

function number(text) { // a hexadecimal number, as C's %a writes it
  const m = /^(-?)0x([01])\.?([0-9a-f]*)p([+-]\d+)$/.exec(text);
  if (!m) return Number(text.replace("inf", "Infinity")); // nan or inf
  let x = 0;
  for (const digit of m[2] + m[3]) x = x * 16 + parseInt(digit, 16);
  const power = Number(m[4]) - 4 * m[3].length, half = Math.trunc(power / 2);
  return (m[1] ? -x : x) * 2 ** half * 2 ** (power - half);
}

const tensor = row => tf.tensor(Float32Array.from(row.data, number), row.shape, "float32");
const written = tree => Object.entries(tree).map(
  ([name, x]) => ({ name, data: Array.from(x.dataSync(), y => Number.isFinite(y) ? y : String(y)) }));

function start(id, params, options) {
  const run = { theta: {}, id, optimizer: tf.train.adadelta(...["lr", "rho", "eps"].map(key => number(options[key]))) };
  // Variables have names that are unique in the whole program.
  for (const row of params) run.theta[row.name] = tf.variable(tensor(row), true, `${id}/${row.name}`);
  return run;
}

function step(run, grads) {
  const given = Object.fromEntries(grads.map(row => [`${run.id}/${row.name}`, tensor(row)]));
  run.optimizer.applyGradients(given);
}

const answers = {
  hello: () => ({ name: "tfjs", supports: [], set_lr: true, accumulators: false, versions: { "@tensorflow/tfjs": tf.version.tfjs },
    defaults: { lr: 0.001, rho: 0.95, eps: 1e-7 } }),
  start: m => { runs[m.run] = start(m.run, m.params, m.options); return {}; },
  step: m => { step(runs[m.run], m.grads); return {}; },
  params: m => ({ params: written(runs[m.run].theta) }),
  set_lr: m => { runs[m.run].optimizer.learningRate = number(m.lr); return {}; },
};

require("readline").createInterface({ input: process.stdin }).on("line", line => {
  const message = JSON.parse(line);
  let answer;
  try { answer = answers[message.do](message); } catch (error) { answer = { error: String(error) }; }
  process.stdout.write(JSON.stringify(answer) + "\n");
});
