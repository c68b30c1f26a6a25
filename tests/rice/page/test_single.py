"""What stands inside a page: JSON that cannot leave its element, escaped texts, a mark that tells whose it is."""

import json
import re
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rice.page.single import INDEX, embedded_json, is_page, mark, render

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text() | st.sampled_from(["</script>", "<!--", "]]>", "\u2028", "{{7*7}}", "\ud800"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip


@given(json_values)
def test_embedded_json_is_the_same_value_and_cannot_leave_its_element(value: Any) -> None:
    text = embedded_json(value)
    assert json.loads(text) == value
    assert not re.search("[<>&\u2028\u2029\x80-\uffff]", text)


def test_texts_are_escaped_and_a_page_is_known_by_its_verb_alone(tmp_path: Path) -> None:
    (tmp_path / "page.j2").write_text(
        "{{ mark }}{{ policy }}<style>{{ style }}</style>{{ title }}{{ data }}{{ script }}"
    )
    page = render(tmp_path / "page.j2", "view", ["<b>"], styles=[], scripts=[], title="<script>1</script>\ud800")
    assert b"&lt;script&gt;1" in page
    assert b"<b>" not in page
    (tmp_path / INDEX).write_bytes(page)
    assert is_page(tmp_path / INDEX, "view")
    assert not is_page(tmp_path / INDEX, "report")
    (tmp_path / INDEX).write_text(f"{' ' * 1024}{mark('view')}")
    assert not is_page(tmp_path / INDEX, "view")
