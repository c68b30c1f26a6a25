// Error bars: a dot at the mean, whiskers of one standard deviation, on the scale of a column. Drawn by page.css.

/** Lowest and highest of mean ± spread. */
function scaleOf(cells) {
  let low = Infinity, high = -Infinity;
  for (const { mean, spread } of cells) {
    low = Math.min(low, mean - (spread ?? 0));
    high = Math.max(high, mean + (spread ?? 0));
  }
  return { low, high };
}

const MARGIN = 10; // percent at both ends
const NARROW = 8; // percent: below, the whiskers' ends would hide the dot
const along = (value, { low, high }) =>
  (high > low ? MARGIN + (100 - 2 * MARGIN) * (value - low) / (high - low) : 50);
const DOT = 6; // pixels
const percent = (value) => `${value.toFixed(1)}%`;

/** Draw a cell's bar as the background of `element`. */
function bar(element, cell, scale) {
  element.classList.add("bar");
  // An image of width w at p percent has p percent of what it leaves free to its left.
  const { style } = element, middle = along(cell.mean, scale);
  const dot = `calc(${percent(middle)} + ${(DOT * (middle - 50) / 100).toFixed(1)}px)`;
  if (cell.spread === null) {
    element.classList.add("single");
    style.backgroundPositionX = dot;
    return element;
  }
  const left = along(cell.mean - cell.spread, scale), width = along(cell.mean + cell.spread, scale) - left;
  const size = percent(width);
  const start = percent(100 * left / (100 - width));
  if (width < NARROW) element.classList.add("narrow");
  style.backgroundSize = width < NARROW ? `6px 6px, ${size} 1px` : `6px 6px, ${size} 1px, ${size} 6px`;
  style.backgroundPositionX = width < NARROW ? `${dot}, ${start}` : `${dot}, ${start}, ${start}`;
  return element;
}

/** A wide bar over the ticks of all encoders in the same column. */
function standing(cell, cells) {
  const scale = scaleOf(cells);
  const ticks = cells.map((other) => {
    const tick = el("i", { class: "tick" });
    tick.style.left = percent(along(other.mean, scale));
    return tick;
  });
  return el("span", { class: "standing", "aria-hidden": "true" }, ticks, bar(el("i"), cell, scale));
}
