import collections

import apache_beam as beam
from apache_beam.testing.test_pipeline import TestPipeline as MemoryPipeline
from apache_beam.testing.util import assert_that, equal_to

from beam_jobs.dataset import packing
from beam_jobs.dataset.options import pipeline_options
from beam_jobs.dataset.packing import PackValues, pack, unpack


def test_unpack_is_the_inverse_of_pack_over_several_packs():
    values = [("a", 1), {"b": None}, b"\0c", ("a", 1)]
    assert list(unpack([pack(values[:3]), pack([]), pack(values[3:])])) == values


def test_packs_of_similar_rows_are_small():
    rows = [f"/archive/files/p10/p10000032/s{number:08d}/image.jpg" for number in range(1000)]
    assert len(pack(rows)) < sum(map(len, rows)) / 5


def test_pack_values_keeps_every_value_under_its_key(monkeypatch):
    monkeypatch.setattr(packing, "MOST_HELD", 4)
    values = [(number % 3, number) for number in range(31)]
    with MemoryPipeline(options=pipeline_options(())) as pipeline:
        packs = pipeline | beam.Create(values, reshuffle=False) | PackValues()
        again = packs | beam.FlatMap(lambda kv: [(kv[0], value) for value in unpack([kv[1]])])
        assert_that(again, equal_to(values), "values")
        sizes = packs | "Sizes" >> beam.Map(lambda kv: len(list(unpack([kv[1]]))))
        # Four values of three keys are held at a time: a pack of two and two of one, seven times, and a rest.
        assert_that(sizes, equal_to([2, 1, 1] * 7 + [1, 1, 1]), "sizes")


def test_packs_of_one_bundle_are_few():
    packed = packing._PackFn()
    packed.start_bundle()
    made = [one for number in range(100) for one in packed.process((number % 2, number))]
    made += [windowed.value for windowed in packed.finish_bundle()]
    assert collections.Counter(key for key, _ in made) == {0: 1, 1: 1}
