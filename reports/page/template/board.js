// The leaderboard: what is chosen -> what is shown -> a table.

const choice = {
  view: "all", text: "", probe: "", dataset: "", trained: "", reported: false,
  hidden: new Set(), sort: null, // {column: number or "encoder", down: boolean}
};

const OTHER_RANK = 2;
const inViews = new Set(DATA.views.flatMap((view) => view.columns.map(([column]) => column)));

/** Columns of the chosen table, with their heads: levels of equal number. */
function columnsOf(view) {
  const named = DATA.views.find(({ id }) => id === view);
  if (named) return withVariants(named.columns.map(([column, heads]) => ({ column, heads })));
  const all = COLUMNS.map((one, column) => ({ column, heads: one.levels }));
  return withVariants(view === "others" ? all.filter(({ column }) => !inViews.has(column)) : all);
}

/** A further level where some column has a variant. */
function withVariants(columns) {
  if (!columns.some(({ column }) => COLUMNS[column].variant)) return columns;
  return columns.map(({ column, heads }) => ({ column, heads: [...heads, COLUMNS[column].variant || "-"] }));
}

/** What is shown: columns, rows in order, the rank of each cell (0 best, 1 second), notes. */
function shownTable() {
  const wanted = ({ column }) => {
    const [probe, dataset] = COLUMNS[column].levels;
    return !choice.hidden.has(column) && (!choice.probe || probe === choice.probe)
      && (!choice.dataset || dataset === choice.dataset);
  };
  const columns = columnsOf(choice.view).filter(wanted);
  const text = choice.text.trim().toLowerCase();
  const rows = ROWS.map((_, row) => row).filter((row) =>
    rowName(row).toLowerCase().includes(text)
    && (!choice.trained || ROWS[row].trained === (choice.trained === "yes"))
    && columns.some(({ column }) => GRID[row].has(column)));
  sortRows(rows);
  const ranks = new Map(), scales = new Map();
  for (const { column } of columns) {
    const cells = rows.map((row) => GRID[row].get(column)).filter(Boolean);
    rank(cells, COLUMNS[column].better, ranks);
    scales.set(column, scaleOf(cells));
  }
  const table = { columns, rows, ranks, scales, view: choice.view, reported: choice.reported };
  table.variants = rows.some((row) => ROWS[row].variant);
  table.notes = notesOf(table);
  return table;
}

function sortRows(rows) {
  if (!choice.sort) return;
  const { column, down } = choice.sort, sign = down ? -1 : 1;
  if (column === "encoder") {
    if (down) rows.reverse(); // they come by name
    return;
  }
  const mean = (row) => GRID[row].get(column)?.mean;
  rows.sort((a, b) => {
    const [x, y] = [mean(a), mean(b)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    return sign * (x - y);
  });
}

/** What reads the same is equally good; a single row is not ranked, nor are cells of fewer items than others. */
function rank(cells, better, ranks) {
  const sign = better ? -1 : 1;
  const most = mostItems(cells), ranked = cells.filter((cell) => !isPartial(cell, most));
  const distinct = [...new Set(ranked.map((cell) => Number(cell.shown[0])))].sort((a, b) => sign * (a - b));
  for (const cell of cells) {
    const value = Number(cell.shown[0]), known = ranked.length > 1 && !isPartial(cell, most);
    ranks.set(cell.index, !known ? OTHER_RANK : value === distinct[0] ? 0 : value === distinct[1] ? 1 : OTHER_RANK);
  }
}

/** Items behind a seed's number, 0 where that is not known. */
const itemsOf = (cell) => Math.max(...cell.seeds.map(([, , , n]) => n));
const mostItems = (cells) => largest(cells.map(itemsOf));
const isPartial = (cell, most) => itemsOf(cell) > 0 && itemsOf(cell) < most;

function notesOf(table) {
  const inColumn = ({ column }) => table.rows.map((row) => GRID[row].get(column)).filter(Boolean);
  const counts = table.rows.flatMap((row) => table.columns.map(({ column }) => GRID[row].get(column)).filter(Boolean));
  const most = largest(counts.map((cell) => cell.seeds.length));
  const items = new Map(table.columns.map((one) => [one.column, mostItems(inColumn(one))]));
  const said = new Map();
  for (const { column } of table.columns) {
    const { note } = COLUMNS[column];
    said.set(note, [...(said.get(note) ?? []), columnName(column)]);
  }
  const name = (cell) => `${rowName(cell.row)}, ${columnName(cell.column)}`;
  const few = counts.filter((cell) => cell.seeds.length < most);
  const partial = counts.filter((cell) => isPartial(cell, items.get(cell.column)));
  return [
    ...briefly(said),
    most > 1 ? `Mean ± standard deviation (ddof 1) over ${most} seeds.` : "One seed.",
    ...few.map((cell) => `${name(cell)}: ${cell.seeds.length} of ${most} seeds.`),
    ...partial.map((cell) => `${name(cell)}: n = ${itemsOf(cell)} of ${items.get(cell.column)}, not ranked.`),
  ];
}

/** The columns' notes. What a probe does for all of its metrics alike is said at the first of them. */
function briefly(said) {
  const first = new Map();
  return [...said].map(([note, names]) => {
    const name = names.join("; ");
    const [count, definition, ...others] = note.split("; "), rest = others.join("; ");
    if (!first.has(rest)) first.set(rest, name);
    const again = `the rest as ${first.get(rest)}`;
    return `${name}: ${first.get(rest) !== name && again.length < rest.length ? [count, definition, again].join("; ") : note}`;
  });
}

/** Draw what is chosen. */
function drawBoard() {
  const table = shownTable();
  const grid = el("table", { class: "board", role: "grid", "aria-describedby": "grid-hint" });
  grid.append(boardHead(table), boardBody(table));
  byId("board-scroll").replaceChildren(table.rows.length && table.columns.length ? grid
    : el("p", { class: "notice" }, "Nothing measured is left by these filters."));
  byId("board-caption").textContent = visible(DATA.views.find(({ id }) => id === choice.view)?.caption ?? "");
  byId("note-list").replaceChildren(...table.notes.map((note) => el("li", null, note)));
  drawLegend(table);
  startGrid(grid);
  return table;
}

function boardHead(table) {
  const levels = table.columns[0]?.heads.length ?? 1;
  const head = el("thead");
  for (let level = 0; level < levels; level++) {
    const line = el("tr");
    if (level === 0) line.append(encoderHead(levels));
    const last = level === levels - 1;
    if (last) line.append(...table.columns.map(columnHead));
    else {
      line.append(...runs(table.columns, level).map(([text, count]) =>
        el("th", { scope: "colgroup", colspan: count, class: "group" }, el("span", null, text))));
    }
    head.append(line);
  }
  return head;
}

const ariaSort = (column) =>
  (choice.sort?.column === column ? (choice.sort.down ? "descending" : "ascending") : "none");
const arrow = (column) =>
  (choice.sort?.column === column ? el("span", { class: "arrow", "aria-hidden": "true" }, choice.sort.down ? "▼" : "▲") : null);

const encoderHead = (levels) =>
  el("th", { scope: "col", rowspan: levels, class: "corner", "aria-sort": ariaSort("encoder"), "data-column": "encoder" },
    el("button", { type: "button", tabindex: -1 }, "Encoder", arrow("encoder")));

function columnHead({ column, heads }) {
  const { unit, better } = COLUMNS[column];
  const direction = better ? "↑" : "↓";
  return el("th", { scope: "col", "aria-sort": ariaSort(column), "data-column": column, title: columnName(column) },
    el("button", { type: "button", tabindex: -1 }, heads.at(-1), arrow(column),
      el("small", { "aria-label": better ? `${unit}, higher is better` : `${unit}, lower is better` }, `${unit} ${direction}`)));
}

// Of a large table the first screen is drawn at once and the rest while the browser is idle, or when it is needed.
const AT_ONCE = 2500, IN_ONE_GO = 1000; // cells
let drawRest = () => {};

function boardBody(table) {
  const body = document.createElement("tbody");
  const rows = (cells) => Math.max(1, Math.ceil(cells / table.columns.length));
  const draw = (count) => {
    const from = body.rows.length;
    body.append(...table.rows.slice(from, from + count).map((row) => boardLine(row, table)));
    return body.rows.length < table.rows.length;
  };
  const whenIdle = window.requestIdleCallback ?? setTimeout;
  const goOn = () => { if (body.isConnected && draw(rows(IN_ONE_GO))) whenIdle(goOn); };
  drawRest = () => draw(table.rows.length);
  if (draw(rows(AT_ONCE))) whenIdle(goOn);
  return body;
}

function boardLine(row, table) {
  const line = document.createElement("tr");
  line.append(rowHead(row));
  for (const { column } of table.columns) line.append(valueCell(GRID[row].get(column), table));
  return line;
}

function rowHead(row) {
  const { name, variant, trained } = ROWS[row];
  return el("th", { scope: "row" },
    el("a", { href: encoderLink(row), tabindex: -1 }, name),
    trained ? null : el("span", { class: "tag" }, "untrained"),
    variant ? el("small", null, variant) : null);
}

const encoderLink = (row) => `#/encoder/${encodeURIComponent(rowName(row))}`;

// Ten thousand of these are drawn at once, so they are built without `el`.
function valueCell(cell, table) {
  const td = document.createElement("td");
  if (!cell) {
    td.className = "none";
    td.textContent = "–";
    return td;
  }
  td.dataset.cell = cell.index;
  td.className = ["best", "second", ""][table.ranks.get(cell.index)];
  const value = document.createElement("b");
  value.textContent = cell.shown[0];
  td.append(value);
  if (cell.shown[1]) td.append(piece("spread", ` ± ${cell.shown[1]}`));
  const beside = besideOf(cell, table.view);
  if (beside?.differs.length) td.append(piece("dagger", "†"));
  if (cell.seeds.length < MOST_SEEDS[cell.column]) {
    td.append(piece("few", ` ${cell.seeds.length}/${MOST_SEEDS[cell.column]}`));
  }
  bar(td, cell, table.scales.get(cell.column));
  if (table.reported && beside?.printed) td.append(reportedPiece(cell, beside));
  return td;
}

function piece(kind, text) {
  const span = document.createElement("span");
  span.className = kind;
  span.textContent = text;
  return span;
}

function reportedPiece(cell, { printed, gain, own }) {
  const whole = piece("reported", `${own === null ? "" : `= ${fixed(own)}, `}reported ${printed} `);
  whole.append(piece((gain > 0) === COLUMNS[cell.column].better ? "gain" : "loss", signed(gain)));
  return whole;
}

function drawLegend(table) {
  const cells = table.rows.flatMap((row) => table.columns.map(({ column }) => GRID[row].get(column)).filter(Boolean));
  const lines = [
    "Mean ± standard deviation over seeds. The dot is the mean, the whiskers one standard deviation, on the column’s own scale.",
    "Best in bold, second underlined, among the rows that are shown.",
    cells.some((cell) => cell.seeds.length < MOST_SEEDS[cell.column]) && "2/3: fewer seeds than others in the column.",
    cells.some((cell) => besideOf(cell, table.view)?.differs.length)
      && "†: the protocol differs from the paper’s; open the value to see how.",
    table.reported && "Reported: as the paper prints it, in its units, and what was measured minus that.",
    table.rows.some((row) => !ROWS[row].trained) && "Untrained: random weights, a floor to compare with.",
  ];
  byId("legend").replaceChildren(...lines.filter(Boolean).map((line) => el("li", null, line)));
}

/** First click: best on top; then the other way round. */
function sortBy(column) {
  const first = column === "encoder" ? false : COLUMNS[column].better;
  choice.sort = { column, down: choice.sort?.column === column ? !choice.sort.down : first };
  const table = drawBoard();
  const name = column === "encoder" ? "encoder" : columnName(column);
  say(`Sorted by ${name}, ${choice.sort.down ? "highest" : "lowest"} first; ${table.rows.length} encoders.`);
  focusHead(column);
}
