// The page's data (reports/page/content.py says its form), looked up by number.

const DATA = JSON.parse(byId("data").textContent);
const ROWS = DATA.rows, COLUMNS = DATA.columns;

const CELLS = DATA.cells.map(([row, column, mean, spread, text, seeds, beside], index) =>
  ({ index, row, column, mean, spread, text, seeds, beside, shown: text.split(" ± ") }));

/** The largest of counts. As arguments of Math.max a hundred thousand are more than a browser takes. */
const largest = (counts) => counts.reduce((most, one) => Math.max(most, one), 0);

// [row][column] -> cell
const GRID = ROWS.map(() => new Map());
for (const cell of CELLS) GRID[cell.row].set(cell.column, cell);

// Of each column: most seeds of a cell, to mark those with fewer.
const MOST_SEEDS = COLUMNS.map(() => 0);
for (const cell of CELLS) MOST_SEEDS[cell.column] = Math.max(MOST_SEEDS[cell.column], cell.seeds.length);

/** A result's fields by name. */
function resultOf(number) {
  const [key, setting, seed, seconds, finished, images_per_s, memory] = DATA.results[number];
  const fields = { key, seed, seconds, finished, images_per_s, peak_memory: DATA.pool[memory] };
  DATA.settings[setting].forEach((place, i) => { fields[DATA.setting_fields[i]] = DATA.pool[place]; });
  return fields;
}

/** Seeds of a cell with their results. */
const seedsOf = (cell) => cell.seeds.map(([number, value, stderr, n, split, protocol]) =>
  ({ ...resultOf(number), value, stderr, n, split: DATA.pool[split], protocol: DATA.pool[protocol] }));

const rowName = (row) => (ROWS[row].variant ? `${ROWS[row].label} / ${ROWS[row].variant}` : ROWS[row].label);
const rowTitle = (row) => [ROWS[row].name, ROWS[row].variant].filter(Boolean).join(" / "); // beside a tag for its weights
const columnLevels = (column) => [...COLUMNS[column].levels, COLUMNS[column].variant].filter(Boolean);
const columnName = (column) => columnLevels(column).join(" / ");

/** Names a cell in links: of its first seed's result, so that it outlives a rebuilt page. */
const cellId = (cell) => {
  const column = COLUMNS[cell.column];
  const key = DATA.results[cell.seeds[0][0]][0].slice(0, 16);
  return [key, column.levels[2], column.variant].filter(Boolean).map(encodeURIComponent).join("/");
};
let cellsById = null;
function cellById(id) {
  cellsById ??= new Map(CELLS.map((cell) => [cellId(cell), cell]));
  return cellsById.get(id);
}

/** What the paper reports for a cell, in each of its tables. `printed` is a text: 35.0, not 35; null where there is none.
 * `gain`: measured minus reported in the paper's units, of which `own` is the measured mean where they are others. */
const besidesOf = (cell) => cell.beside.map(([table, row, column, printed, mean, differs]) => ({
  table, row, column, printed, differs,
  gain: printed === null ? null : mean - Number(printed),
  own: Math.abs(mean - cell.mean) > 1e-6 * Math.abs(mean) ? mean : null,
}));

/** The same in the table that is looked at; in any, where it is not in that. */
function besideOf(cell, view) {
  if (!cell.beside.length) return null;
  const found = besidesOf(cell);
  return found.find(({ table }) => view === `table-${table}`) ?? found[0];
}

const fixed = (value) => value.toFixed(DATA.decimals);
const signed = (gain) => {
  const size = fixed(Math.abs(gain));
  return Number(size) === 0 ? size : `${gain < 0 ? "−" : "+"}${size}`;
};
