"""What the engine remembers of images in memory: within a budget."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from murank.engine.memory_cache import MemoryCache, content_key


def test_the_key_is_the_content() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 8, 4), dtype=np.uint8)
    key = content_key(image)
    assert content_key(image.copy()) == key
    assert content_key(np.asfortranarray(image)) == key  # not how it lies in memory
    assert content_key(image.reshape(3, 4, 8)) != key  # the same bytes
    image[2, 7, 3] ^= 1
    assert content_key(image) != key


def test_least_recently_used_goes_first() -> None:
    cache = MemoryCache(30)
    for key in "abc":
        cache.put(key, key.upper(), 10)
    assert cache.get("a") == "A"  # now the most recent
    cache.put("d", "D", 10)
    assert [cache.get(key) for key in "abcd"] == ["A", None, "C", "D"]
    assert cache.bytes == 30


def test_a_large_value_takes_the_place_of_several() -> None:
    cache = MemoryCache(30)
    for key in "abc":
        cache.put(key, key, 10)
    cache.put("d", "d", 15)
    assert [cache.get(key) for key in "abcd"] == [None, None, "c", "d"]
    assert cache.bytes == 25


def test_what_is_over_the_budget_alone_disturbs_nothing() -> None:
    cache = MemoryCache(30)
    cache.put("a", "a", 30)
    cache.put("b", "b", 31)
    assert (cache.get("a"), cache.get("b"), cache.bytes) == ("a", None, 30)
    nothing = MemoryCache(0)
    nothing.put("a", "a", 1)
    assert (nothing.get("a"), nothing.bytes) == (None, 0)


def test_a_key_put_again_counts_once() -> None:
    cache = MemoryCache(30)
    for size in (10, 25, 5):
        cache.put("a", size, size)
    cache.put("b", "b", 25)
    assert (cache.get("a"), cache.get("b"), cache.bytes) == (5, "b", 30)


def test_clear_forgets_and_starts_again() -> None:
    cache = MemoryCache(30)
    cache.put("a", "a", 20)
    cache.clear()
    assert (cache.get("a"), cache.bytes) == (None, 0)
    cache.put("b", "b", 30)
    assert cache.get("b") == "b"


def test_threads_keep_the_books_right() -> None:
    cache, budget = MemoryCache(1000), 1000

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for step in range(2000):
            number = int(random.integers(60))
            found = cache.get(str(number))
            assert found in (None, number)
            cache.put(str(number), number, int(random.integers(1, 90)))
            assert step % 100 or cache.bytes <= budget + 90
            if number == 0:
                cache.clear()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    kept = cache._values
    assert cache.bytes == sum(size for _, size in kept.values()) <= budget


def test_one_is_forgotten_and_its_room_is_free() -> None:
    cache = MemoryCache(30)
    for key in "abc":
        cache.put(key, key, 10)
    assert (cache.forget("b"), cache.forget("b"), cache.bytes) == (True, False, 20)
    cache.put("d", "d", 10)
    assert [cache.get(key) for key in "abcd"] == ["a", None, "c", "d"]
