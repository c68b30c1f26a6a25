// Clips and figures. What is inside the page becomes an address when it is first shown.

const KINDS = { pca: "PCA of patch tokens", tsne: "t-SNE", tokens: "Token distances", curves: "Curves" };
const addresses = new Map();

/** An address for a medium: a file beside the page, or a blob of what is inside it. */
function addressOf({ type, inline, file }) {
  if (file) return file;
  if (!addresses.has(inline)) {
    const text = byId(`medium-${inline}`).textContent;
    if (type.startsWith("image/")) addresses.set(inline, `data:${type};base64,${text}`);
    else {
      const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
      addresses.set(inline, URL.createObjectURL(new Blob([bytes], { type })));
    }
  }
  return addresses.get(inline);
}

// Clips play while they are in sight, unless the reader asked for less motion.
const still = matchMedia("(prefers-reduced-motion: reduce)");
const inSight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) target.pause();
    else if (!still.matches) target.play().catch(() => {}); // the browser may forbid it: the controls stay
  }
}, { threshold: 0.4 });

function clip(figure) {
  const video = el("video", {
    src: addressOf(figure.clip), controls: true, loop: true, playsinline: true, preload: "metadata", "aria-label": figure.title,
  });
  video.muted = true;
  inSight.observe(video);
  return video;
}

const picture = (figure, medium) =>
  el("button", { type: "button", class: "picture", "aria-label": `Enlarge: ${figure.title}`,
    onclick: () => view(el("img", { src: addressOf(medium), alt: figure.title })) },
  el("img", { src: addressOf(medium), alt: figure.title, loading: "lazy" }));

/** Still pictures of a clip, drawn when they are asked for. */
function frames(figure) {
  const still = el("details", { class: "stills" }, el("summary", null, "Some of its frames, side by side"));
  still.addEventListener("toggle", () => still.append(...figure.pictures.map((medium) => picture(figure, medium))), { once: true });
  return still;
}

function drawFigure(figure) {
  return el("figure", { class: figure.kind },
    figure.clip ? clip(figure) : null,
    figure.clip && figure.pictures.length ? frames(figure) : figure.pictures.map((medium) => picture(figure, medium)),
    el("figcaption", null,
      el("strong", null, figure.title), el("span", { class: "muted" }, figure.title.startsWith(KINDS[figure.kind]) ? "" : ` ${KINDS[figure.kind]}`),
      figure.page ? el("button", { type: "button", onclick: () => view(interactive(figure)) }, "Turn it in space") : null,
      figure.rows.length ? el("p", null, figure.rows.map((row, i) => [i ? ", " : "", el("a", { href: encoderLink(row) }, rowName(row))])) : null,
      figure.facts.length ? el("p", { class: "muted small" }, figure.facts.map(([name, value]) => `${name} ${value}`.trim()).join(" · ")) : null));
}

// Another verb's page: it may run scripts, but in no way reach this one.
const interactive = (figure) =>
  el("iframe", { src: addressOf(figure.page), sandbox: "allow-scripts", title: figure.title, referrerpolicy: "no-referrer" });

function view(content) {
  const dialog = byId("viewer");
  dialog.replaceChildren(el("form", { method: "dialog" }, el("button", { class: "quiet", "aria-label": "Close" }, "✕")), content);
  dialog.showModal();
}

function drawFigures() {
  const list = byId("figure-list");
  if (list.childElementCount) return;
  list.replaceChildren(...(DATA.figures.length ? DATA.figures.map(drawFigure)
    : [el("p", { class: "notice" }, "None yet. Name folders that rice pca, rice tsne or rice tokens wrote: rice report … --figures FOLDER")]));
}
