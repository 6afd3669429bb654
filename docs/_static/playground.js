/* The playground: sliders, the plane with the paths, the losses, and what Adadelta keeps, drawn as SVG in the page.
   Every element of class "playground" becomes one; what it holds before is the figure for readers without scripts. */
(function () {
  "use strict";
  const { RULES, loss, descend } = window.adadelta;

  const STYLES = { Adadelta: ["#D55E00", ""], SGD: ["#0072B2", "7 3"], RMSProp: ["#009E73", "2 3"], Adam: ["#CC79A7", "9 3 2 3"] };
  const LRS = { Adadelta: 1, SGD: 0.01, RMSProp: 0.01, Adam: 0.01 };
  const NAMES = { valley: "Valley (quadratic)", rosenbrock: "Rosenbrock", beale: "Beale" };
  const SLIDERS = [
    // key, label, from, to, step, start, value of the slider -> value, text
    ["rho", "rho", 0, 0.995, 0.005, 0.9, (x) => x, (x) => x.toFixed(3)],
    ["eps", "eps", -10, 0, 0.5, -6, (x) => 10 ** x, (x) => x.toExponential(0)],
    ["lr", "lr of Adadelta", 0.05, 2, 0.05, 1, (x) => x, (x) => x.toFixed(2)],
    ["others", "lr of the others", -4, 0, 0.25, -2, (x) => 10 ** x, (x) => x.toPrecision(2)],
    ["condition", "steep / flat", 0, 4, 0.25, 2, (x) => 10 ** x, (x) => String(Math.round(x))],
    ["steps", "steps", 1, 4, 0.1, 2.6, (x) => Math.round(10 ** x), (x) => String(x)],
    ["x", "start, x", -2, 4, 0.05, -1, (x) => x, (x) => x.toFixed(2)],
    ["y", "start, y", -2, 3, 0.05, 0.9, (x) => x, (x) => x.toFixed(2)],
  ];
  let count = 0;

  function make(tag, attributes, ...children) {
    const svg = ["svg", "g", "path", "text", "circle", "line", "title", "rect", "clipPath"].includes(tag);
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  /* A drawing area with its axes; `toX` and `toY` map numbers to its coordinates. */
  const WIDTH = 360, HEIGHT = 300, LEFT = 46, BOTTOM = 34, TOP = 24;
  function axes(svg, title, [x0, x1, y0, y1], logX, logY, xLabel) {
    svg.replaceChildren(make("title", {}, title));
    const f = (log) => (log ? Math.log10 : (v) => v);
    const scale = (v, a, b, log, p, q) => p + ((f(log)(v) - f(log)(a)) / (f(log)(b) - f(log)(a))) * (q - p);
    const toX = (v) => scale(v, x0, x1, logX, LEFT, WIDTH - 10);
    const toY = (v) => scale(v, y0, y1, logY, HEIGHT - BOTTOM, TOP);
    const ticks = (a, b, log) => {
      if (log) {
        const [from, to] = [Math.ceil(Math.log10(a) - 1e-9), Math.floor(Math.log10(b) + 1e-9)];
        const by = Math.max(1, Math.ceil((to - from) / 5));
        return Array.from({ length: Math.floor((to - from) / by) + 1 }, (_, k) => 10 ** (from + by * k));
      }
      const by = (b - a) / 4;
      return Array.from({ length: 5 }, (_, k) => +(a + by * k).toPrecision(2));
    };
    const text = (v, log) => (log && (v >= 1e4 || v < 0.01) ? v.toExponential(0) : String(v));
    svg.append(make("path", { class: "axis", d: `M${LEFT} ${TOP}V${HEIGHT - BOTTOM}H${WIDTH - 10}` }));
    for (const v of ticks(x0, x1, logX)) svg.append(make("text", { x: toX(v), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, text(v, logX)));
    for (const v of ticks(y0, y1, logY)) svg.append(make("text", { x: LEFT - 5, y: toY(v) + 4, "text-anchor": "end" }, text(v, logY)));
    svg.append(make("text", { x: LEFT, y: 14, class: "heading" }, title));
    svg.append(make("text", { x: WIDTH - 10, y: HEIGHT - 4, "text-anchor": "end" }, xLabel));
    return { toX, toY };
  }

  /* Lines of equal loss, by marching squares, on levels that are powers of ten. */
  function contours(f, [x0, x1, y0, y1], { toX, toY }) {
    const n = 60, X = (i) => x0 + ((x1 - x0) * i) / n, Y = (j) => y0 + ((y1 - y0) * j) / n;
    const value = Array.from({ length: n + 1 }, (_, i) => Array.from({ length: n + 1 }, (_, j) => Math.log10(f.value([X(i), Y(j)]) + 1e-12)));
    let d = "";
    for (let level = -3; level <= 4; level += 0.5) {
      for (let i = 0; i < n; i++) {
        for (let j = 0; j < n; j++) {
          const corners = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]];
          const cuts = [];
          corners.forEach(([a, b], k) => {
            const [p, q] = corners[(k + 1) % 4], u = value[a][b] - level, v = value[p][q] - level;
            if (u < 0 !== v < 0) cuts.push([X(a + ((p - a) * u) / (u - v)), Y(b + ((q - b) * u) / (u - v))]);
          });
          for (let k = 0; k + 1 < cuts.length; k += 2) {
            d += `M${toX(cuts[k][0]).toFixed(1)} ${toY(cuts[k][1]).toFixed(1)}L${toX(cuts[k + 1][0]).toFixed(1)} ${toY(cuts[k + 1][1]).toFixed(1)}`;
          }
        }
      }
    }
    return make("path", { class: "contour", d });
  }

  const far = (v) => Math.max(-1e4, Math.min(1e4, v)).toFixed(1); // what has left the drawing
  const line = (points, color, dashes) =>
    make("path", { class: "curve", stroke: color, "stroke-dasharray": dashes, d: points.map(([x, y], k) => `${k ? "L" : "M"}${far(x)} ${far(y)}`).join("") });
  function legend(svg, row, name, color, dashes) {
    const y = HEIGHT - BOTTOM - 12 - 15 * row;
    svg.append(line([[LEFT + 8, y], [LEFT + 34, y]], color, dashes), make("text", { x: LEFT + 40, y: y + 4, class: "name" }, name));
  }
  /* Of a long run, about 400 steps, spaced as a logarithmic axis shows them, and the last. */
  const sampled = (states) => states.filter((_, t) => t < 200 || t % Math.ceil(t / 150) === 0 || t === states.length - 1);
  const say = (v) => (v === 0 ? "0" : v.toExponential(1));

  function playground(place) {
    const id = `playground-${count++}`, values = {}, outputs = {}, inputs = {};
    const small = place.dataset.size === "small";
    const form = make("form", { class: "controls", "aria-label": "Settings of the playground" });
    form.addEventListener("submit", (event) => event.preventDefault());
    const choose = (key, label, options) => {
      const select = make("select", { id: `${id}-${key}` }, ...Object.entries(options).map(([value, text]) => make("option", { value }, text)));
      form.append(make("label", { for: select.id }, label, select));
      inputs[key] = select;
      return select;
    };
    const problem = choose("loss", "Loss", NAMES);
    for (const [key, label, from, to, by, first, , ] of SLIDERS) {
      const input = make("input", { type: "range", id: `${id}-${key}`, min: from, max: to, step: by, value: first });
      outputs[key] = make("output", { for: input.id });
      const row = make("label", { for: input.id }, make("span", {}, label, " ", outputs[key]), input);
      if (small && ["others", "x", "y", "steps"].includes(key)) row.hidden = true;
      form.append(row);
      inputs[key] = input;
    }
    const shown = make("fieldset", {}, make("legend", {}, "Beside Adadelta"));
    for (const name of Object.keys(RULES).slice(1)) {
      const box = make("input", { type: "checkbox", id: `${id}-${name}` });
      box.checked = name === "SGD";
      inputs[name] = box;
      shown.append(make("label", { for: box.id }, box, ` ${name}`));
    }
    const parameter = choose("parameter", "What Adadelta keeps, for", { y: "y", x: "x" });
    form.append(shown);
    const drawing = () => make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
    const plane = drawing(), fall = drawing(), kept = drawing();
    const summary = make("p", { class: "summary", role: "status", "aria-live": "polite" });
    const drawings = make("div", { class: "drawings" }, plane, fall, ...(small ? [] : [kept]));
    if (small) parameter.parentElement.hidden = true;
    place.replaceChildren(form, drawings, summary);

    function read() {
      for (const [key, , , , , , value, text] of SLIDERS) {
        values[key] = value(Number(inputs[key].value));
        outputs[key].textContent = text(values[key]);
        inputs[key].setAttribute("aria-valuetext", outputs[key].textContent);
      }
      inputs.condition.disabled = problem.value !== "valley";
    }

    function draw() {
      read();
      const f = loss(problem.value, values.condition), { steps } = values;
      const names = Object.keys(RULES).filter((name) => name === "Adadelta" || inputs[name].checked);
      const runs = names.map((name) => {
        const lr = name === "Adadelta" ? values.lr : values.others;
        return [name, descend(name, f, [values.x, values.y], { rho: values.rho, eps: values.eps, lr }, steps)];
      });
      const map = axes(plane, "The paths", f.view, false, false, "x");
      plane.append(contours(f, f.view, map));
      const clip = make("clipPath", { id: `${id}-clip` }, make("rect", { x: LEFT, y: TOP, width: WIDTH - 10 - LEFT, height: HEIGHT - BOTTOM - TOP }));
      const paths = make("g", { "clip-path": `url(#${id}-clip)` });
      plane.append(clip, paths);
      for (const [name, states] of runs) paths.append(line(sampled(states).map(({ theta: [x, y] }) => [map.toX(x), map.toY(y)]), ...STYLES[name]));
      paths.append(make("circle", { class: "start", cx: map.toX(values.x), cy: map.toY(values.y), r: 4 }));
      paths.append(make("path", { class: "minimum", d: `M${map.toX(f.minimum[0]) - 5} ${map.toY(f.minimum[1])}h10m-5 -5v10` }));

      const chart = axes(fall, "The loss", [1, Math.max(steps, 2), 1e-12, 1e4], true, true, "step");
      const at = (v) => Math.min(1e4, Math.max(1e-12, v));
      runs.forEach(([name, states], k) => {
        fall.append(line(sampled(states).map((s) => [chart.toX(s.t + 1), chart.toY(at(f.value(s.theta)))]), ...STYLES[name]));
        legend(fall, k, name, ...STYLES[name]);
      });

      const k = "xy".indexOf(parameter.value), states = runs[0][1].slice(1);
      const memory = axes(kept, `Adadelta, parameter ${"xy"[k]}`, [1, Math.max(steps, 2), 1e-8, 1e3], true, true, "step");
      const four = {
        "RMS[g]": [(s) => Math.sqrt(s.e_g2[k] + values.eps), "#0072B2", ""],
        "RMS[Delta]": [(s) => Math.sqrt(s.e_delta2[k] + values.eps), "#009E73", "7 3"],
        "step size": [(s) => s.size[k], "#D55E00", ""],
        "distance": [(s) => Math.abs(s.theta[k] - f.minimum[k]), "#CC79A7", "2 3"],
      };
      Object.entries(four).forEach(([name, [value, color, dashes]], row) => {
        kept.append(line(sampled(states).map((s) => [memory.toX(s.t), memory.toY(Math.min(1e3, Math.max(1e-8, value(s))))]), color, dashes));
        legend(kept, row, name, color, dashes);
      });
      const ends = runs.map(([name, states]) =>
        states.length <= steps ? `${name} left all bounds at step ${states.length}` : `${name} ${say(f.value(states[steps].theta))}`);
      summary.textContent = `Loss after ${steps} steps: ${ends.join(", ")}.`;
      plane.setAttribute("aria-label", `Paths of ${names.join(", ")} over lines of equal loss.`);
      fall.setAttribute("aria-label", summary.textContent);
      const last = states[states.length - 1];
      kept.setAttribute("aria-label", `At the end, ${Object.entries(four).map(([name, [value]]) => `${name} is ${say(value(last))}`).join(", ")}.`);
    }

    problem.addEventListener("change", () => {
      const [x, y] = loss(problem.value, 1).start;
      inputs.x.value = x;
      inputs.y.value = y;
    });
    form.addEventListener("input", draw);
    form.addEventListener("change", draw);
    draw();
  }

  document.querySelectorAll(".playground").forEach(playground);
})();
