"use strict";
// The particles in three dimensions. Lab frame: x right, y down, z away from the viewer who looks along the beam.
(() => {
  const { times, apply, turn, onDrag } = Turning;
  const SVG = "http://www.w3.org/2000/svg";
  const byId = (id) => document.getElementById(id);
  const box = byId("space");
  if (!box) return;
  const data = JSON.parse(byId("data-space").textContent), view = byId("space-view");
  const kinds = data.kinds, unseen = new Set(["hidden", "outside"]);
  const reach = 1.12 * Math.max(...data.field.map((v) => v / 2), ...data.particles.map(([, p]) => Math.hypot(...p)));
  const scale = 205 / reach;
  let camera, pointed = -1, waiting = false;

  // ------------------------------------------------------------------ turning
  const w = data.axis * Math.PI / 180, axis = [Math.cos(w), Math.sin(w), 0];
  const views = {
    "space-tilted": times(turn([1, 0, 0], -62), turn([0, 0, 1], 28)),
    "space-beam": turn([0, 0, 1], 0),
    "space-axis": times([[0, 1, 0], [0, 0, 1], [1, 0, 0]], turn([0, 0, 1], -data.axis)),  // z down, as with the beam
  };

  // ------------------------------------------------------------------ drawing
  function element(name, attributes, text) {
    const e = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
    if (text !== undefined) e.textContent = text;
    return e;
  }
  const line = (kind, points) => element("path", { class: kind, d: `M${points.map((p) => `${p[0].toFixed(1)} ${p[1].toFixed(1)}`).join("L")}` });

  function shade(share) {
    const at = Math.min(Math.max(share, 0), 1) * (data.scale.length - 1), i = Math.min(Math.floor(at), data.scale.length - 2);
    return `rgb(${data.scale[i].map((c, k) => Math.round(c + (at - i) * (data.scale[i + 1][k] - c))).join(" ")})`;
  }

  function limits(values) {
    const known = values.filter((v) => v !== null), lo = Math.min(...known), hi = Math.max(...known);
    return hi > lo ? [lo, hi] : [lo - 0.5, hi + 0.5];
  }

  const sign = (v, digits = 1) => v.toFixed(digits).replace("-", "\u2212");

  const groups = {};
  for (const name of ["under", "dots", "names", "over"]) groups[name] = view.appendChild(element("g", {}));
  const dots = data.particles.map(([track, , , radius], i) => {
    const dot = element("circle", { r: Math.max(radius * scale, 3).toFixed(1) });
    dot.addEventListener("mouseenter", () => { pointed = i; redraw(); });
    dot.addEventListener("click", () => { location.hash = `p${track}`; });
    return dot;
  });
  const labels = data.particles.length > 150 ? [] : data.particles.map(([track]) => element("text", { class: "name" }, track));
  groups.names.append(...labels);

  function tell(i, state) {
    const [track, p, e] = data.particles[i], facts = { Particle: track };
    "xyz".split("").forEach((c, k) => { facts[c] = `${sign(p[k])}${e[k] === null ? "" : ` ± ${sign(e[k])}`} nm`; });
    for (const [name, [classes, of]] of Object.entries(data.classes)) facts[name] = of[i] < 0 ? "none" : classes[of[i]][0];
    for (const [name, [unit, values]] of Object.entries(data.values)) {
      if (name !== "height z" && values[i] !== null) facts[name] = `${sign(values[i], unit === "%" ? 0 : 2)} ${unit}`;
    }
    if (state) facts["at this tilt"] = state[1];
    byId("space-told").replaceChildren(...Object.entries(facts).map(([name, value]) => {
      const row = document.createElement("div");
      for (const [tag, text] of [["dt", name], ["dd", value]]) row.append(Object.assign(document.createElement(tag), { textContent: text }));
      return row;
    }));
  }

  function frame(stage) {
    const [a, b] = data.field.map((v) => v / 2), to = (p) => apply(stage, p).map((v) => v * scale);
    const corners = [[-a, -b, 0], [a, -b, 0], [a, b, 0], [-a, b, 0], [-a, -b, 0]].map(to);
    const long = reach * 0.98, ends = [-long, long].map((l) => apply(camera, axis.map((v) => v * l)).map((v) => v * scale));
    groups.under.replaceChildren(line("plane", corners), line("tiltaxis", ends));
    for (const [name, p] of [["x", [a * 1.1, 0, 0]], ["y", [0, b * 1.1, 0]]]) {
      const q = to(p);
      groups.under.append(element("text", { class: "mid", x: q[0].toFixed(1), y: (q[1] + 4).toFixed(1) }, name));
    }
    const end = ends[1];
    if (Math.hypot(end[0], end[1]) > 40) groups.under.append(element("text", { class: "mid axisname", x: (end[0] * 1.04).toFixed(1), y: (end[1] * 1.04 + (end[1] < 0 ? -4 : 12)).toFixed(1) }, "tilt axis"));
  }

  function bar() {
    const raw = 120 / scale, power = 10 ** Math.floor(Math.log10(raw));
    const long = [5, 2, 1].find((s) => s * power <= raw) * power, px = long * scale;
    const at = [-285, 190], beam = apply(camera, [0, 0, 1]), tip = [245 + 34 * beam[0], 160 + 34 * beam[1]];
    groups.over.replaceChildren(
      line("bar", [at, [at[0] + px, at[1]]]),
      element("text", { x: at[0], y: at[1] - 7 }, `${long} nm`),
      line("beam", [[245 - 34 * beam[0], 160 - 34 * beam[1]], tip]),
      element("circle", { class: "tip", cx: tip[0].toFixed(1), cy: tip[1].toFixed(1), r: 3 }),
      element("text", { class: "mid", x: 245, y: 205 }, "beam, z"),
    );
  }

  function draw() {
    waiting = false;
    const k = Number(byId("space-tilt").value), tilted = data.alpha.length > 0;
    const stage = times(camera, turn(axis, tilted ? data.alpha[k] : 0));
    const drift = tilted && byId("space-drift").checked ? apply(camera, [...data.drift[k], 0]) : [0, 0, 0];
    const paint = painter(byId("space-colour").value);
    frame(stage);
    const order = [];
    data.particles.forEach(([, p], i) => {
      const q = apply(stage, p).map((v, c) => (v + drift[c]) * scale);
      const state = tilted ? kinds[data.states[i].charCodeAt(k) - 97] : null;
      dots[i].setAttribute("cx", q[0].toFixed(1));
      dots[i].setAttribute("cy", q[1].toFixed(1));
      const hollow = state && unseen.has(state[0]);
      dots[i].setAttribute("fill", hollow ? "#fff" : paint(i));
      dots[i].setAttribute("class", (hollow ? "ring" : "") + (i === pointed ? " pointed" : ""));
      if (i === pointed) tell(i, state);
      if (labels.length) {
        labels[i].setAttribute("x", (q[0] + Number(dots[i].getAttribute("r")) + 3).toFixed(1));
        labels[i].setAttribute("y", (q[1] + 4).toFixed(1));
        const foot = apply(stage, [p[0], p[1], 0]).map((v, c) => (v + drift[c]) * scale);
        groups.under.append(line("stem", [foot, q]));
      }
      order.push([q[2], i]);
    });
    order.sort((a, b) => b[0] - a[0]);  // far ones first
    const sorted = order.map(([, i]) => dots[i]);
    if (sorted.some((dot, i) => groups.dots.children[i] !== dot)) groups.dots.replaceChildren(...sorted);
    bar();
    byId("space-where").textContent = tilted ? `tilt ${data.tilts[k]} · ${sign(data.alpha[k])}°` : "no tilt angle is known";
  }

  function redraw() {
    if (!waiting) requestAnimationFrame(draw);
    waiting = true;
  }

  // The colour of each particle, by a value on the scale or by its class.
  function painter(name) {
    const none = "#8b949c";
    if (name in data.classes) {
      const [classes, of] = data.classes[name];
      return (i) => (of[i] < 0 ? none : classes[of[i]][1]);
    }
    const [, values] = data.values[name], [lo, hi] = limits(values);
    return (i) => (values[i] === null ? none : shade((values[i] - lo) / (hi - lo)));
  }

  function recolour() {
    const name = byId("space-colour").value, classed = name in data.classes, legend = byId("space-classes");
    byId("space-key").hidden = classed;
    legend.replaceChildren();
    if (classed) {
      const shown = [...data.classes[name][0], ...(data.classes[name][1].includes(-1) ? [["none", "#8b949c"]] : [])];
      for (const [text, colour] of shown) {
        const swatch = document.createElement("i"), entry = document.createElement("span");
        swatch.style.background = colour;
        entry.append(swatch, text);
        legend.append(entry);
      }
    } else {
      const [unit, values] = data.values[name], [lo, hi] = limits(values), digits = hi - lo > 20 ? 0 : 2;
      byId("space-low").textContent = `${sign(lo, digits)} ${unit}`;
      byId("space-high").textContent = `${sign(hi, digits)} ${unit}`;
    }
    draw();
  }

  // ------------------------------------------------------------------ hands
  onDrag(view, (by) => { camera = times(by, camera); redraw(); });
  for (const [id, wanted] of Object.entries(views)) byId(id).addEventListener("click", () => { camera = wanted; redraw(); });
  for (const name of [...Object.keys(data.classes), ...Object.keys(data.values)]) byId("space-colour").append(new Option(name, name));
  byId("space-colour").addEventListener("change", recolour);
  byId("space-scale").style.background = `linear-gradient(to right, ${data.scale.map((c) => `rgb(${c.join(" ")})`).join(", ")})`;
  byId("space-drift").addEventListener("change", redraw);
  const slider = byId("space-tilt");
  slider.max = Math.max(data.alpha.length - 1, 0);
  slider.addEventListener("input", redraw);
  const size = data.alpha.map(Math.abs);
  slider.value = size.indexOf(Math.min(...size));
  camera = views["space-tilted"];
  box.hidden = false;
  recolour();
})();
