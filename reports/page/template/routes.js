// Where the address leads: #/board/VIEW, #/cell/KEY/METRIC, #/encoders, #/encoder/NAME, #/figures, #/paper, #/left.

const PAGES = ["board", "encoders", "encoder", "figures", "paper", "left"];
let below = "#/board"; // the page that provenance lies over

function goTo(hash) {
  if (location.hash === hash) follow();
  else location.hash = hash;
}

function show(page) {
  for (const name of PAGES) byId(`page-${name}`).hidden = name !== page;
  for (const link of document.querySelectorAll("nav a")) {
    const current = link.hash === `#/${page}` || (page === "encoder" && link.hash === "#/encoders");
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.body.dataset.page = page;
}

let followed = null;

function follow() {
  const [, name, ...rest] = location.hash.split("/");
  const detail = rest.join("/");
  const dialog = byId("provenance");
  if (name === "cell") {
    if (!document.body.dataset.page) followPage("board", "all");
    const cell = cellById(detail);
    if (!cell) return;
    drawRest();
    const place = byId("board-scroll").querySelector(`td[data-cell="${cell.index}"]`);
    if (place && document.body.dataset.page === "board" && !dialog.open) focusCell(place);
    openProvenance(cell);
    return;
  }
  if (dialog.open) dialog.close();
  if (location.hash === "#main") return;
  below = location.hash || "#/board";
  if (below !== followed) followPage(PAGES.includes(name) ? name : "board", detail);
  followed = below;
}

function followPage(page, detail) {
  const moved = document.body.dataset.page && document.body.dataset.page !== page;
  if (page === "board") chooseView(detail || choice.view);
  else if (page === "encoders") drawEncoders();
  else if (page === "encoder") drawEncoder(decoded(detail));
  else if (page === "figures") drawFigures();
  show(page);
  if (moved) {
    scrollTo(0, 0);
    byId("main").focus({ preventScroll: true });
  }
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch { // a link that was cut
    return text;
  }
}

function startTheme() {
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)");
  const remember = (theme) => { try { localStorage.setItem("theme", theme); } catch { /* storage may be closed to files */ } };
  const remembered = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const theme = remembered();
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;
  byId("theme").addEventListener("click", () => {
    const now = root.dataset.theme ?? (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    remember(root.dataset.theme);
  });
}

function start() {
  startTheme();
  startToolbar();
  const seeds = Math.max(0, ...MOST_SEEDS);
  byId("summary").textContent =
    `${ROWS.length} encoders · ${COLUMNS.length} columns · ${CELLS.length} values · up to ${seeds} ${seeds === 1 ? "seed" : "seeds"} each`;
  byId("to-figures").append(DATA.figures.length ? ` (${DATA.figures.length})` : "");
  byId("to-left").append(` (${DATA.left.length})`);
  byId("left-list").replaceChildren(DATA.left.length
    ? plainTable(["file", "reason"], DATA.left) : el("p", { class: "notice" }, "Nothing was left out."));
  byId("provenance").addEventListener("close", () => {
    if (location.hash.startsWith("#/cell/")) history.replaceState(null, "", below);
  });
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  }
  byId("viewer").addEventListener("close", (event) => event.target.replaceChildren());
  addEventListener("hashchange", follow);
  follow();
  requestAnimationFrame(() => setTimeout(() => { document.body.dataset.ready = "yes"; })); // it has been painted
}

start();
