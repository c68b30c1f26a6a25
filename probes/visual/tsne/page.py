"""Spheres side by side as one interactive page: drag turns all of them, pointing at a point says which object it is.

One file that asks nothing of the network: plotly's own JavaScript is inside. Its policy runs plotly's scripts, whose
hashes it names, and no other (plotly styles what it draws by inline styles). Names come from users' files, so they are
escaped: for the page by jinja2, for plotly, whose labels are a kind of HTML, here.
"""

import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from probes.visual.tsne.draw import EYE, MARKERS, WARNING, Panel, Shown, graticule
from rice.errors import require
from rice.files import atomic_write
from rice.page.single import allowed_scripts

_FONT = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif"
_BALL = 0.985
"""Its radius: points sit on it, not in it."""
_HOVER = "<br>image %{customdata[0]}<br>annotation %{customdata[1]}<extra></extra>"
_ZOOM = 1.75
_PANEL_PX = 460
_LINKED = """
const spheres = document.getElementById('{plot_id}');
const scenes = Object.keys(spheres.layout).filter(key => /^scene[0-9]*$/.test(key));
let turning = false;
const follow = change => {
  if (turning) return;
  const update = {};
  for (const what of ['.camera', '.aspectratio']) {
    const value = scenes.map(scene => change[scene + what]).find(Boolean);
    if (value) for (const scene of scenes) update[scene + what] = value;
  }
  if (!Object.keys(update).length) return;
  turning = true;
  Plotly.relayout(spheres, update).then(() => { turning = false; });
};
spheres.on('plotly_relayouting', follow);
spheres.on('plotly_relayout', follow);
"""
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src {{ scripts }}; style-src
'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>
body { margin: 0 auto; max-width: 110rem; padding: 1.2rem; color: #333; background: #fff;
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.25rem; margin: 0; }
p { margin: .2rem 0; }
.note { color: #666; font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; margin: .8rem 0; }
thead { border-bottom: 1px solid; }
th, td { padding: .2em .9em; text-align: right; font-variant-numeric: tabular-nums; }
th:first-child { text-align: left; }
tbody th { font-weight: normal; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p>{{ shown.caption }}</p>
<p class="note">Drag to turn, scroll to zoom, point to see which object it is; a click on a category hides it, a double
click shows it alone.</p>
{{ plot | safe }}
<p class="note">{{ warning }}</p>
<div class="scroll"><table>
<thead><tr><th>Encoder</th><th>10-NN purity</th><th>chance</th><th>silhouette</th><th>KL, nats</th><th>radius</th>
<th>objects</th></tr></thead>
<tbody>
{% for panel in panels %}<tr><th>{{ panel.label }}</th><td>{{ "%.3f" | format(panel.separation.purity) }}</td>
<td>{{ "%.3f" | format(panel.separation.chance) }}</td><td>{{ "%+.3f" | format(panel.separation.silhouette) }}</td>
<td>{{ "%.3f" | format(panel.kl) }}</td><td>{{ "%.1f" | format(panel.radius) }}</td>
<td>{{ panel.separation.n }}</td></tr>
{% endfor %}</tbody>
</table></div>
<p class="note">Purity: share of an object's 10 nearest neighbours, by cosine in the encoder's own features, that are of
its category; chance: the share of neighbours drawn at random. Silhouette: scikit-learn's, by cosine, in the same
features. KL: what the projection lost; radius: of the sphere that it was fitted to.</p>
</body>
</html>
"""


def write_page(path: Path, panels: Sequence[Panel], shown: Shown) -> None:
    """Write the page, atomically. Errors: MissingExtraError without plotly."""
    import jinja2

    plot = _figure(panels, shown).to_html(
        full_html=False,
        include_plotlyjs=True,
        div_id="spheres",
        post_script=_LINKED,
        config={"displaylogo": False, "responsive": True},
    )
    template = jinja2.Environment(autoescape=True).from_string(_PAGE)
    title = "Object features on a sphere, by t-SNE"
    with atomic_write(path) as file:
        text = template.render(
            title=title, panels=panels, shown=shown, plot=plot, warning=WARNING, scripts=Markup(allowed_scripts(plot))
        )
        file.write(text)


def _figure(panels: Sequence[Panel], shown: Shown) -> Any:
    graph = require("plotly.graph_objects", "page")
    subplots = require("plotly.subplots", "page")
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = subplots.make_subplots(
        rows=rows,
        cols=columns,
        specs=[[{"type": "scene"}] * columns for _ in range(rows)],
        subplot_titles=[f"<b>{_escaped(panel.label)}</b>" for panel in panels],
        horizontal_spacing=0.01,
        vertical_spacing=0.06,
    )
    for place, panel in enumerate(panels):
        for trace in (*_ball(graph), *_points(graph, panel, shown, legend=place == 0)):
            figure.add_trace(trace, row=place // columns + 1, col=place % columns + 1)
    axis = {"visible": False, "range": [-1.05, 1.05]}
    figure.update_scenes(
        xaxis=axis,
        yaxis=axis,
        zaxis=axis,
        aspectmode="manual",
        aspectratio=dict.fromkeys("xyz", _ZOOM),
        dragmode="orbit",
        camera={
            "eye": dict(zip("xyz", EYE.tolist(), strict=True)),
            "up": {"x": 0, "y": 1, "z": 0},
            "projection": {"type": "orthographic"},
        },
    )
    figure.update_layout(
        template="plotly_white",
        height=rows * _PANEL_PX + 60,
        modebar={"orientation": "v"},
        margin={"l": 0, "r": 0, "t": 40, "b": 0},
        font={"family": _FONT, "color": "#333"},
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "y": -0.02, "itemsizing": "constant"},
    )
    return figure


def _ball(graph: Any) -> Iterator[Any]:
    """A sphere like milk glass, which pales what is behind it, with its graticule."""
    latitude, longitude = np.meshgrid(np.linspace(-np.pi / 2, np.pi / 2, 49), np.linspace(0, 2 * np.pi, 97))
    x, y, z = np.cos(latitude) * np.sin(longitude), np.sin(latitude), np.cos(latitude) * np.cos(longitude)
    yield graph.Surface(
        x=_BALL * x,
        y=_BALL * y,
        z=_BALL * z,
        opacity=0.6,
        showscale=False,
        hoverinfo="skip",
        colorscale=[[0, "#f1f1f4"], [1, "#f1f1f4"]],
        lighting={"ambient": 1, "diffuse": 0, "specular": 0, "fresnel": 0},
        contours={axis: {"highlight": False} for axis in "xyz"},
    )
    gap_13 = np.full((1, 3), np.nan)
    lines_L3 = np.concatenate([part for line in graticule() for part in (line[::3], gap_13)])
    x, y, z = lines_L3.T
    yield graph.Scatter3d(
        x=x, y=y, z=z, mode="lines", line={"color": "#b4b4be", "width": 1}, hoverinfo="skip", showlegend=False
    )


def _points(graph: Any, panel: Panel, shown: Shown, *, legend: bool) -> Iterator[Any]:
    for category, name in enumerate(shown.categories):
        chosen = np.flatnonzero(shown.labels == category)
        colour, marker = shown.style(category)
        x, y, z = panel.directions[chosen].T
        yield graph.Scatter3d(
            x=x,
            y=y,
            z=z,
            mode="markers",
            name=_escaped(name),
            legendgroup=str(category),
            showlegend=legend,
            marker={"size": 4, "color": colour, "symbol": MARKERS[marker], "line": {"width": 0}},
            customdata=[[shown.images[i], shown.annotations[i]] for i in chosen.tolist()],
            hovertemplate=f"<b>{_escaped(name)}</b>{_HOVER}",
        )


def _escaped(text: str) -> str:
    """As plotly's labels want it: their entities are few, and a template's %{...} must not start in a name."""
    return html.escape(text, quote=False).replace("%{", "%\u200b{")
