from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from millie.bags.loading import apply_background
from millie.bags.store import BagReader
from millie.errors import ConfigError
from millie.inference.embed import ahead, cache_key, embed_bag
from millie.inference.runtime import FeatureRuntime

MakeBag = Callable[..., BagReader]


def test_features_are_those_of_the_runtime(make_bag: MakeBag, runtime: FeatureRuntime) -> None:
    reader = make_bag(10)
    features = embed_bag(reader, runtime, batch_size=3)
    assert features.dtype == np.float16
    np.testing.assert_array_equal(features, runtime(reader.images(0, 10)).astype(np.float16))


def test_the_second_time_comes_from_the_cache(make_bag: MakeBag, runtime: FeatureRuntime) -> None:
    reader = make_bag(10)
    first = embed_bag(reader, runtime, batch_size=4)
    assert runtime.batches == [4, 4, 2]
    np.testing.assert_array_equal(embed_bag(reader, runtime, batch_size=3), first)
    assert runtime.batches == [4, 4, 2], "nothing was computed again"
    embed_bag(reader, runtime, batch_size=4, cache=False)
    assert runtime.batches == [4, 4, 2] * 2


def test_whatever_changes_a_feature_changes_the_key(
    make_bag: MakeBag, runtime: FeatureRuntime
) -> None:
    reader = make_bag(4)
    kept = embed_bag(reader, runtime)
    masked = embed_bag(reader, runtime, background="mask")
    expected = runtime(apply_background(reader.images(0, 4), reader.masks(0, 4), "mask"))
    np.testing.assert_array_equal(masked, expected.astype(np.float16))
    assert not np.array_equal(kept, masked)
    keys = {cache_key(runtime, d, b) for d in ("a", "b") for b in ("keep", "mask", "only")}
    assert len(keys) == 6
    assert {len(key) for key in keys} == {64}


def test_progress_is_told(make_bag: MakeBag, runtime: FeatureRuntime) -> None:
    told: list[tuple[int, int]] = []
    reader = make_bag(5)
    for _ in range(2):
        embed_bag(reader, runtime, batch_size=2, progress=lambda done, n: told.append((done, n)))
    assert told == [(2, 5), (4, 5), (5, 5), (5, 5)]


def test_an_empty_bag_has_no_features(make_bag: MakeBag, runtime: FeatureRuntime) -> None:
    assert embed_bag(make_bag(0), runtime).shape == (0, runtime.dim)


def test_ahead_keeps_order_and_runs_one_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(5):
            made.append(i)
            yield i

    seen = []
    for item in ahead(items()):
        time.sleep(0.01)
        assert len(made) <= item + 2
        seen.append(item)
    assert seen == [0, 1, 2, 3, 4]


def test_an_error_ahead_reaches_the_user() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ConfigError("broken")

    iterator = ahead(items())
    assert next(iterator) == 1
    with pytest.raises(ConfigError, match="broken"):
        next(iterator)
