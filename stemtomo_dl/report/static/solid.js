"use strict";
// Lattices and structures that turn: balls, lines and axes on a canvas. Screen: x right, y down, z away.
(() => {
  const { times, apply, turn, onDrag } = Turning;
  const triples = (flat) =>
    Array.from({ length: flat.length / 3 }, (_, i) => [flat[3 * i], flat[3 * i + 1], flat[3 * i + 2]].map((v) => v / 1000));

  // Looks along a vector: it points toward the viewer, and what `up` points to is up.
  function along(v, up) {
    const unit = (p) => p.map((c) => c / Math.hypot(...p));
    const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
    const away = unit(v).map((c) => -c), right = unit(cross(away, up));
    return [right, cross(away, right), away];
  }

  function bring(box) {
    const data = JSON.parse(box.querySelector("script").textContent), canvas = box.querySelector("canvas");
    const pen = canvas.getContext("2d");
    const axes = data.axes.map(([name, p]) => [name, triples(p)[0]]);
    const parts = [];  // what is sorted by depth: ends or centre, colour, radius
    for (const group of data.groups) {
      triples(group.xyz).forEach((at, i) => parts.push({ at, colour: group.colour, r: (group.r.length > 1 ? group.r[i] : group.r[0]) / 1000 }));
    }
    for (const [kind, width] of [["lines", 1], ["bonds", 4]]) {
      for (const [colour, flat] of data[kind] || []) {
        const ends = triples(flat);
        for (let i = 0; i < ends.length; i += 2) parts.push({ ends: [ends[i], ends[i + 1]], colour, width });
      }
    }
    const points = parts.flatMap((p) => p.ends || [p.at]);
    const middle = data.centred ? [0, 1, 2].map((k) => (Math.min(...points.map((p) => p[k])) + Math.max(...points.map((p) => p[k]))) / 2) : [0, 0, 0];
    const reach = 1.06 * Math.max(...points.map((p) => Math.hypot(...p.map((v, k) => v - middle[k]))));
    let camera = times(turn([1, 0, 0], -12), times(turn([0, 1, 0], 18), along(axes[0][1], axes[2][1]))), waiting = false;

    function draw() {
      waiting = false;
      const side = canvas.clientWidth, dense = window.devicePixelRatio || 1;
      if (!side) return;
      canvas.width = canvas.height = side * dense;
      pen.setTransform(dense, 0, 0, dense, side * dense / 2, side * dense / 2);
      const scale = side / 2 / reach, to = (p) => apply(camera, p.map((v, k) => v - middle[k])).map((v) => v * scale);
      const placed = parts.map((p) => {
        const q = (p.ends || [p.at]).map(to);
        return [q.reduce((sum, v) => sum + v[2], 0) / q.length, p, q];
      }).sort((a, b) => b[0] - a[0]);
      for (const [depth, p, q] of placed) {
        pen.globalAlpha = 0.95 - 0.55 * Math.min(Math.max((depth / scale / reach + 1) / 2, 0), 1);  // far ones fade
        pen.beginPath();
        if (p.ends) {
          pen.strokeStyle = p.colour;
          pen.lineWidth = p.width;
          pen.moveTo(q[0][0], q[0][1]);
          pen.lineTo(q[1][0], q[1][1]);
          pen.stroke();
        } else {
          pen.fillStyle = p.colour;
          pen.arc(q[0][0], q[0][1], Math.max(p.r * scale, 1.2), 0, 7);
          pen.fill();
          if (p.r * scale > 5) { pen.strokeStyle = "#3c4348"; pen.lineWidth = 0.8; pen.stroke(); }
        }
      }
      pen.globalAlpha = 1;
      pen.fillStyle = "#00704f";
      pen.strokeStyle = "#009e73";
      pen.lineWidth = 1.6;
      pen.font = "13px sans-serif";
      const start = to(data.origin ? triples(data.origin)[0] : [0, 0, 0]);
      for (const [name, p] of axes) {
        const end = to(p);
        pen.beginPath();
        pen.moveTo(start[0], start[1]);
        pen.lineTo(end[0], end[1]);
        pen.stroke();
        pen.fillText(name, end[0] + 4, end[1] - 4);
      }
    }

    function redraw() {
      if (!waiting) requestAnimationFrame(draw);
      waiting = true;
    }
    onDrag(canvas, (by) => { camera = times(by, camera); redraw(); });
    for (const button of box.querySelectorAll("button")) {
      const i = Number(button.dataset.look);
      button.addEventListener("click", () => { camera = along(axes[i][1], axes[(i + 1) % 3][1]); redraw(); });
    }
    new ResizeObserver(redraw).observe(canvas);  // also when what it lies in is opened
  }

  document.querySelectorAll(".solid").forEach(bring);
})();
