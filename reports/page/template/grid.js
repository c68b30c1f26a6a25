// The leaderboard by mouse and keyboard: one stop for Tab; arrow keys move inside (the grid pattern of WAI-ARIA).

let active = null;

const lines = (grid) => [heads(grid), ...[...grid.tBodies[0].rows].map((row) => [...row.cells])];
const heads = (grid) => [...grid.tHead.querySelectorAll("[data-column]")];
const focusable = (cell) => cell.querySelector("button, a") ?? cell;

function startGrid(grid) {
  active = null;
  const first = grid.tHead?.querySelector("[data-column]");
  if (first) makeActive(first);
}

function makeActive(cell) {
  if (active) focusable(active).tabIndex = -1;
  active = cell;
  focusable(cell).tabIndex = 0;
}

function focusCell(cell) {
  makeActive(cell);
  focusable(cell).focus();
}

const focusHead = (column) => focusCell(byId("board-scroll").querySelector(`th[data-column="${column}"]`));

function moveInGrid(event) {
  const grid = event.target.closest("table");
  const cell = event.target.closest("td, th");
  drawRest();
  const all = grid && cell && lines(grid);
  const y = all ? all.findIndex((line) => line.includes(cell)) : -1;
  if (y < 0) return;
  const x = all[y].indexOf(cell), last = all.length - 1, right = all[0].length - 1;
  const page = 10;
  const target = {
    ArrowLeft: [y, x - 1], ArrowRight: [y, x + 1], ArrowUp: [y - 1, x], ArrowDown: [y + 1, x],
    Home: [event.ctrlKey ? 0 : y, 0], End: [event.ctrlKey ? last : y, right],
    PageUp: [Math.max(0, y - page), x], PageDown: [Math.min(last, y + page), x],
  }[event.key];
  if (target) {
    event.preventDefault();
    const next = all[target[0]]?.[target[1]];
    if (next) focusCell(next);
  } else if ((event.key === "Enter" || event.key === " ") && cell.dataset.cell) {
    event.preventDefault();
    goTo(`#/cell/${cellId(CELLS[cell.dataset.cell])}`);
  }
}

function clickInGrid(event) {
  const cell = event.target.closest("td, th");
  if (!cell) return;
  if (cell.dataset.column) sortBy(cell.dataset.column === "encoder" ? "encoder" : Number(cell.dataset.column));
  else if (cell.dataset.cell) goTo(`#/cell/${cellId(CELLS[cell.dataset.cell])}`);
}

addEventListener("beforeprint", () => drawRest());
byId("board-scroll").addEventListener("keydown", moveInGrid);
byId("board-scroll").addEventListener("click", clickInGrid);
