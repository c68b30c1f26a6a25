// What chooses and what copies.

const filters = byId("filters");
const option = (value, text, properties = {}) => el("option", { value, ...properties }, text);

function say(text) {
  byId("said").textContent = visible(text);
}

function startToolbar() {
  const others = COLUMNS.some((_, column) => !inViews.has(column));
  filters.view.append(option("all", "All measured"),
    el("optgroup", { label: "The paper’s tables" }, DATA.views.map(({ id, title, columns }) =>
      option(id, columns.length ? title : `${title} (none measured)`, { disabled: !columns.length }))),
    inViews.size && others ? option("others", "Not in the paper") : "");
  for (const [name, level] of [["probe", 0], ["dataset", 1]]) {
    const values = [...new Set(COLUMNS.map(({ levels }) => levels[level]))];
    filters[name].append(option("", "any"), ...values.map((value) => option(value, value)));
  }
  const reported = CELLS.some((cell) => cell.beside.some(([, , , printed]) => printed !== null));
  filters.reported.closest("label").hidden = !reported;
  filters.addEventListener("input", readFilters);
  filters.addEventListener("submit", (event) => event.preventDefault());
  byId("columns").addEventListener("click", hideAllOrNone);
  byId("copy-markdown").addEventListener("click", () => copy(asMarkdown, "Markdown"));
  byId("copy-latex").addEventListener("click", () => copy(asLatex, "LaTeX"));
  byId("save-csv").addEventListener("click", saveCsv);
}

function readFilters(event) {
  if (event.target.dataset.hide) {
    const column = Number(event.target.dataset.hide);
    if (event.target.checked) choice.hidden.delete(column);
    else choice.hidden.add(column);
    nameColumnMenu();
  } else if (event.target === filters.view) {
    goTo(`#/board/${filters.view.value}`);
    return;
  } else {
    for (const name of ["text", "probe", "dataset", "trained"]) choice[name] = filters[name].value;
    choice.reported = filters.reported.checked;
  }
  const table = drawBoard();
  say(`${table.rows.length} encoders, ${table.columns.length} columns.`);
}

/** Look at another table: its own columns, in its own order. */
function chooseView(view) {
  const known = ["all", "others", ...DATA.views.map(({ id }) => id)].includes(view);
  choice.view = known ? view : "all";
  choice.sort = choice.sort?.column === "encoder" ? choice.sort : null;
  filters.view.value = choice.view;
  byId("column-list").replaceChildren(...columnsOf(choice.view).map(({ column, heads }) =>
    el("label", { class: "check" },
      el("input", { type: "checkbox", "data-hide": column, checked: !choice.hidden.has(column) }),
      heads.filter((head) => head !== "-").join(" / "))));
  nameColumnMenu();
  drawBoard();
}

function nameColumnMenu() {
  const all = columnsOf(choice.view), shown = all.filter(({ column }) => !choice.hidden.has(column));
  byId("columns").querySelector("summary").textContent =
    shown.length === all.length ? `Columns (${all.length})` : `Columns (${shown.length} of ${all.length})`;
}

function hideAllOrNone(event) {
  const wish = event.target.dataset.all;
  if (!wish) return;
  for (const { column } of columnsOf(choice.view)) {
    if (wish === "yes") choice.hidden.delete(column);
    else choice.hidden.add(column);
  }
  chooseView(choice.view);
}

async function copy(write, format) {
  const table = shownTable();
  const text = write(table);
  try {
    await navigator.clipboard.writeText(text);
    say(`Copied as ${format}: ${table.rows.length} encoders, ${table.columns.length} columns.`);
  } catch { // absent on pages that are not secure, or not allowed
    const dialog = byId("copying"), area = dialog.querySelector("textarea");
    area.value = text;
    dialog.showModal();
    area.select();
  }
}

function saveCsv() {
  const url = URL.createObjectURL(new Blob([asCsv(shownTable())], { type: "text/csv" }));
  el("a", { href: url, download: `${choice.view}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
  say("Saved as CSV.");
}
