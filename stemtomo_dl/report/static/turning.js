"use strict";
// What every view in three dimensions shares: rotations as rows of 3 × 3 numbers, and the hand that turns them.
const Turning = (() => {
  const times = (a, b) => a.map((row) => b[0].map((_, j) => row.reduce((sum, v, k) => sum + v * b[k][j], 0)));
  const apply = (m, p) => m.map((row) => row[0] * p[0] + row[1] * p[1] + row[2] * p[2]);

  // right-handed, about a unit vector (Rodrigues)
  function turn([x, y, z], degrees) {
    const c = Math.cos(degrees * Math.PI / 180), s = Math.sin(degrees * Math.PI / 180), d = 1 - c;
    return [
      [c + x * x * d, x * y * d - z * s, x * z * d + y * s],
      [y * x * d + z * s, c + y * y * d, y * z * d - x * s],
      [z * x * d - y * s, z * y * d + x * s, c + z * z * d],
    ];
  }

  // Calls `turned` with the rotation that a drag over an element adds, in the frame of the screen (z away).
  function onDrag(element, turned) {
    let from = null;
    element.addEventListener("pointerdown", (event) => { from = [event.clientX, event.clientY]; });
    window.addEventListener("pointermove", (event) => {
      if (!from) return;
      const [dx, dy] = [event.clientX - from[0], event.clientY - from[1]];
      from = [event.clientX, event.clientY];
      turned(times(turn([0, 1, 0], -0.5 * dx), turn([1, 0, 0], 0.5 * dy)));
    });
    for (const end of ["pointerup", "pointercancel"]) window.addEventListener(end, () => { from = null; });
  }
  return { times, apply, turn, onDrag };
})();
