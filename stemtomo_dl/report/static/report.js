"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const byId = (id) => document.getElementById(id);
  const read = (id) => JSON.parse(byId(id).textContent);

  // ------------------------------------------------------------------ particles
  const all = byId("all");
  const particles = [...document.querySelectorAll("details.particle")];
  const openAll = () => particles.forEach((d) => { d.open = true; });
  if (all) all.addEventListener("click", () => {
    const open = all.textContent === "Open all";
    particles.forEach((d) => { d.open = open; });
    all.textContent = open ? "Close all" : "Open all";
  });
  window.addEventListener("beforeprint", openAll);

  // ------------------------------------------------------------------ series
  const viewer = byId("viewer");
  const series = viewer ? read("data-series") : null;
  const pictures = {};
  let at = 0, chosen = 0, timer = 0;

  // A loop is x, y of its first corner and a letter a step, horizontal and vertical in turn: a is 0, b 1, A −1.
  function path(loops) {
    let d = "";
    for (const [x, y, letters] of loops) {
      d += `M${x} ${y}`;
      for (let i = 0; i < letters.length; i++) {
        const c = letters.charCodeAt(i), step = c >= 97 ? c - 97 : 64 - c;
        if (step) d += (i % 2 ? "v" : "h") + step;
      }
      d += "z";
    }
    return d;
  }

  function shape(kind, d) {
    const p = document.createElementNS(SVG, "path");
    p.setAttribute("d", d);
    p.setAttribute("class", kind);
    return p;
  }

  function tell(track, x, y, area, flag) {
    const facts = track ? { Particle: track, "x, y": `${x}, ${y} px` } : { Outline: "without a track" };
    facts["Area"] = `${area} px²`;
    if (flag) facts["At this tilt"] = ["", "cut by the scan's border", "off its predicted place"][flag];
    if (track) [facts["Seen at"], facts["Misfit to a rigid sample"]] = series.tracks[track];
    byId("told").replaceChildren(...Object.entries(facts).map(([name, value]) => {
      const row = document.createElement("div");
      for (const [tag, text] of [["dt", name], ["dd", value]]) {
        row.append(Object.assign(document.createElement(tag), { textContent: text }));
      }
      return row;
    }));
  }

  // Within its outline where it fits, else beside it.
  function label(overlay, edge, track, size) {
    const box = edge.getBBox(), within = box.width > 3 * size && box.height > 2 * size;
    const beside = box.x + box.width + 1.6 * size > series.shape[1] ? "end" : "start";
    const text = document.createElementNS(SVG, "text");
    const places = { start: box.x + box.width + size / 6, end: box.x - size / 6 };
    text.textContent = track;
    text.setAttribute("font-size", size);
    text.setAttribute("stroke-width", size / 4);
    text.setAttribute("fill", within ? "#fff" : edge.style.stroke);
    text.setAttribute("text-anchor", within ? "middle" : beside);
    text.setAttribute("x", within ? box.x + box.width / 2 : places[beside]);
    text.setAttribute("y", within ? box.y + box.height / 2 + size / 3 : box.y + size / 2);
    overlay.append(text);
  }

  function drawOutline(overlay, [track, x, y, area, flag, loops], size) {
    const d = path(loops), edge = shape(track ? "edge" : "edge stray", d);
    overlay.append(shape("under", d), edge);
    if (track) {
      edge.style.stroke = series.colours[(track - 1) % series.colours.length];
      edge.classList.toggle("chosen", track === chosen);
      edge.addEventListener("click", () => show(track));
      label(overlay, edge, track, size);
    }
    edge.addEventListener("mouseenter", () => tell(track, x, y, area, flag));
    if (track && track === chosen) tell(track, x, y, area, flag);
  }

  function draw() {
    const detector = byId("detector").value;
    pictures[detector] = pictures[detector] || read(`data-${detector}`);
    const data = pictures[detector][at], angle = series.alpha[at];
    const degrees = angle === null ? "no angle" : `${angle.toFixed(1).replace("-", "\u2212")}°`;
    const name = series.names[at] ? ` · ${series.names[at]}` : "";
    byId("slider").value = at;
    byId("where").textContent = `tilt ${series.tilts[at]} · ${degrees}${name}`;
    byId("picture").hidden = !data;
    if (data) byId("picture").src = `data:image/webp;base64,${data}`;
    byId("absent").hidden = Boolean(data);
    byId("absent").textContent = data ? "" : `Tilt ${series.tilts[at]} was left out; it has no picture.`;
    const overlay = byId("overlay"), letters = series.outlines[at].length > 120 ? 10 : 13;
    const size = letters * series.shape[1] / Math.max(byId("stage").clientWidth, 1);
    overlay.replaceChildren();
    for (const outline of series.outlines[at]) {
      if (outline[0] || byId("strays").checked) drawOutline(overlay, outline, size);
    }
    overlay.classList.toggle("bare", !byId("outlines").checked);
    overlay.classList.toggle("unnumbered", !byId("numbers").checked);
  }

  function go(i) {
    const n = series.tilts.length;
    at = Math.min(Math.max(i, 0), n - 1);
    draw();
  }

  function nearest(tilt) {
    let best = 0;
    series.tilts.forEach((t, i) => { if (Math.abs(t - tilt) < Math.abs(series.tilts[best] - tilt)) best = i; });
    return best;
  }

  function show(track) {
    chosen = track;
    location.hash = `p${track}`;
    const strip = byId(`p${track}`);
    if (strip) {
      strip.open = true;
      strip.scrollIntoView();
    }
    draw();
  }

  function play() {
    if (timer) {
      clearInterval(timer);
      timer = 0;
    } else {
      timer = setInterval(() => go((at + 1) % series.tilts.length), 160);
    }
    byId("play").textContent = timer ? "Stop" : "Play";
  }

  // #p7 opens a particle; #tilt=30&track=7&detector=bf shows that tilt
  function follow() {
    const wanted = location.hash.slice(1), strip = /^p\d+$/.test(wanted) ? byId(wanted) : null;
    if (strip) {
      strip.open = true;
      strip.scrollIntoView();
    }
    const asked = new URLSearchParams(wanted);
    if (!series || !/^\d+$/.test(asked.get("tilt"))) return;
    chosen = Number(asked.get("track")) || 0;
    const detector = [...byId("detector").options].find((o) => o.value === asked.get("detector"));
    if (detector) byId("detector").value = detector.value;
    go(nearest(Number(asked.get("tilt"))));
    viewer.scrollIntoView();
  }

  function keys(event) {
    const busy = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName) && event.target.type !== "checkbox";
    const box = viewer.getBoundingClientRect();
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || busy || event.altKey || event.ctrlKey || event.metaKey || box.bottom < 0 || box.top > innerHeight) return;
    go(at + step);
    event.preventDefault();
  }

  if (series) {
    byId("slider").addEventListener("input", (event) => go(Number(event.target.value)));
    byId("play").addEventListener("click", play);
    for (const id of ["detector", "outlines", "numbers", "strays"]) byId(id).addEventListener("change", draw);
    document.addEventListener("keydown", keys);
    new ResizeObserver(draw).observe(byId("stage"));
    const known = series.alpha.map((a) => (a === null ? Infinity : Math.abs(a)));
    go(known.indexOf(Math.min(...known)));
  }
  window.addEventListener("hashchange", follow);
  follow();
})();
