"""The list of data sets."""

import pytest

from medclip_keras.sources import SOURCES, get_source


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_source_says_what_it_is_and_reads_something(name):
    source = get_source(name)
    assert len(source.__doc__) > 300
    assert "Layout on disk" in source.__doc__ or name in ("csv", "phantom")
    assert source.CITATION
    assert source.LICENCE
    images = {"image_rows", "read_image"} <= set(vars(source))
    reports = {"report_rows", "read_report"} <= set(vars(source))
    assert images or reports


@pytest.mark.parametrize("name", sorted(set(SOURCES) - {"csv", "phantom", "table"}))
def test_the_documentation_says_where_to_download(name):
    assert "https://" in get_source(name).__doc__


def test_get_source_names_the_near_ones():
    with pytest.raises(ValueError, match=r"`source` must be one of .*'kermani'\. Near names: kermany\."):
        get_source("kermani")
