"""Values of a key in packs: many together and compressed, so that what a runner groups in memory is small.

A local runner keeps all that is grouped. There a row by itself takes 770 bytes, and some 3,000 as an object;
in packs it takes 100.
"""

import collections
import pickle
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows

MOST_HELD = 10_000  # values, of all keys together, that a worker holds before they go into packs


def pack(values: Sequence[Any]) -> bytes:
    """Values as one compressed piece.

    >>> list(unpack([pack([1, 2]), pack(["three"])]))
    [1, 2, 'three']
    """
    return _compress([_serialize(value) for value in values])


def unpack(packs: Iterable[bytes]) -> Iterator[Any]:
    """The values of packs, one at a time: as objects they are large."""
    for one in packs:
        for serialized in pickle.loads(zlib.decompress(one)):
            yield pickle.loads(serialized)


def _serialize(value: Any) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def _compress(serialized: list[bytes]) -> bytes:
    return zlib.compress(_serialize(serialized), level=1)


class PackValues(beam.PTransform):
    """(key, value) → (key, pack); which values share a pack is the runner's affair."""

    def expand(self, keyed_values):
        """Adds the step."""
        return keyed_values | "Pack" >> beam.ParDo(_PackFn())


class _PackFn(beam.DoFn):
    def start_bundle(self):
        self._held, self._num_held = collections.defaultdict(list), 0

    def process(self, element):
        key, value = element
        self._held[key].append(_serialize(value))
        self._num_held += 1
        if self._num_held >= MOST_HELD:
            yield from self._packs()

    def finish_bundle(self):
        for keyed_pack in self._packs():
            yield GlobalWindows.windowed_value(keyed_pack)

    def _packs(self):
        held = self._held
        self.start_bundle()
        for key in list(held):
            yield key, _compress(held.pop(key))
