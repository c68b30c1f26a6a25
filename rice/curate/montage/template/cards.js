// A card for each cluster: its sheet, and all that is known of the regions on it when it is opened.

const title = (cluster) => (cluster.name ? `${cluster.name} (${cluster.number})` : `${DATA.kind} ${cluster.number}`);
const source = (file) => `${DATA.folder}/${file}`;

function card(cluster) {
  const drawn = cluster.regions.filter((one) => !one.near), near = cluster.regions.length - drawn.length;
  const below = drawn.length ? drawn[0].top : cluster.height;
  const whole = cluster.regions.length === cluster.size; // nothing is left to draw from
  const kinds = [near ? kind(whole && !drawn.length ? "all" : "nearest", 0, cluster.regions[near - 1].top + DATA.settings.tile) : "",
    drawn.length ? kind(!whole ? "drawn" : near ? "the rest" : "all", below, cluster.height) : ""];
  return el("article", { class: "card", id: `c${cluster.number}`, "data-number": cluster.number },
    el("header", null, el("h3", null, title(cluster)), el("p", { class: "muted" }, many(cluster.size, "region"),
      cluster.distance === null ? "" : ` · mean distance² ${digits(cluster.distance)}`)),
    el("div", { class: "sheet-row" }, el("div", { class: "kinds" }, kinds),
      el("button", { type: "button", class: "picture", "aria-label": `Open ${title(cluster)}`, onclick: () => open(cluster) },
        sheetOf(cluster, { loading: "lazy", decoding: "async" }))));
}

const sheetOf = (cluster, more = {}) =>
  el("img", { src: source(cluster.file), width: cluster.width, height: cluster.height, alt: `Regions of ${title(cluster)}`, ...more });

/** Says of the rows between two heights of a sheet what they show. */
function kind(name, top, bottom) {
  const label = el("span", { class: name === "nearest" ? name : null }, name);
  Object.assign(label.style, { top: `${top}px`, height: `${bottom - top}px` });
  return label;
}

function open(cluster) {
  const dialog = byId("viewer"), spot = el("i", { class: "spot", hidden: true });
  const rows = cluster.regions.map((one) => el("tr", { onmouseenter: () => point(cluster, one, spot) },
    el("td", null, one.damaged ? "damaged" : one.near ? "nearest" : "drawn"),
    DATA.measured ? el("td", null, digits(one.squared)) : "", el("td", null, digits(one.score)),
    el("th", { scope: "row" }, one.picture), el("td", null, one.box.join(", "))));
  const heads = ["shown as", ...(DATA.measured ? ["distance²"] : []), "score", "picture", "box: x1, y1, x2, y2"];
  dialog.replaceChildren(
    el("header", null, el("div", null, el("h2", { id: "viewer-title" }, title(cluster)), el("p", { class: "muted" }, many(cluster.size, "region"))),
      el("form", { method: "dialog" }, el("button", null, "Close"))),
    el("div", { class: "opened" },
      el("div", { class: "large" }, el("div", { class: "sheet-place" }, sheetOf(cluster), spot)),
      el("div", { class: "scroll" }, el("table", { class: "plain" },
        el("thead", null, el("tr", null, heads.map((head) => el("th", { scope: "col" }, head)))), el("tbody", null, rows)))));
  dialog.showModal();
  dialog.scrollTop = 0;
}

/** Frame the thumbnail that a row of the table is about. */
function point(cluster, region, spot) {
  const { tile } = DATA.settings, part = (length, whole) => `${(100 * length) / whole}%`;
  spot.hidden = false;
  Object.assign(spot.style, { left: part(region.left, cluster.width), top: part(region.top, cluster.height),
    width: part(tile, cluster.width), height: part(tile, cluster.height) });
}
