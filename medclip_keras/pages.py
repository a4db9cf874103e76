"""HTML pages: jinja2 templates next to the code, and tables."""

import functools
from collections.abc import Iterable, Sequence

import jinja2
from markupsafe import Markup

_TABLE = (
    '<table><thead><tr>{% for name in header %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>'
    "<tbody>{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}"
    "</tbody></table>"
)


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """Return an HTML table; cells are escaped, `markupsafe.Markup` cells are inserted as HTML.

    >>> print(html_table(["F1"], [["< 0.9"], [Markup("<b>1</b>")]]))
    <table><thead><tr><th scope="col">F1</th></tr></thead><tbody><tr><td>&lt; 0.9</td></tr>...
    """
    return Markup(_environment("medclip_keras").from_string(_TABLE).render(header=header, rows=rows))


def fill_template(package: str, name: str, **values: object) -> Markup:
    """Render a jinja2 template of a package's folder; values are escaped unless they are `Markup`.

    Raises:
        jinja2.UndefinedError: a name of the template that has no value.
    """
    return Markup(_environment(package).get_template(name).render(values))


@functools.cache
def _environment(package: str) -> jinja2.Environment:
    loader = jinja2.PackageLoader(package, "")
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
