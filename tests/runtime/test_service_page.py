"""The page at /, in a real browser: what is asked, what is shown, what is erased, and by whom."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("onnxruntime")
from browser import CHROMIUM, Browser
from made_crops import draw
from served import served

from murank import Engine, Gallery
from murank.gallery.gallery_result import GalleryMatch
from murank.service.access import Tokens
from murank.service.page import read_page
from murank.service.service_state import ServiceState

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
ENGINE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
HOSTILE = '<img src=x onerror="window.pwned=1">\'&?#%41'
NOON = 1_795_953_600.0  # 2026-11-29 12:00:00 UTC, 13:00:00 in Vienna
READ, ADMIN = "read-" + "r" * 16, "admin-" + "a" * 16


def jpeg(person: int, camera: int, shot: int) -> bytes:
    file = BytesIO()
    draw(person, camera, shot).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    """Six people before three cameras, an hour apart, and one whose names are markup."""
    with (
        Engine.from_pretrained(ENGINE, providers="cpu") as engine,
        Gallery.open(tmp_path_factory.mktemp("page") / "gallery.db", engine) as result,
    ):
        for person in range(1, 7):
            result.add(
                [jpeg(person, camera, 0) for camera in (1, 2, 3)], camera=[1, 2, 3],
                time=[NOON, NOON + 3600, NOON + 7200], id=[f"{person}-{c}" for c in (1, 2, 3)],
                track=f"track {person}", subject=f"case {person}",
            )  # fmt: skip
        result.add(
            [jpeg(1, 1, 1)], camera=4, time=NOON, id=HOSTILE, track=f"track {HOSTILE}",
            subject=f"case {HOSTILE}", attributes={f"note {HOSTILE}": HOSTILE},
        )  # fmt: skip
        yield result


@pytest.fixture(scope="module")
def service(gallery: Gallery) -> Iterator[tuple[str, ServiceState]]:
    assert gallery.engine is not None
    with served(gallery.engine, gallery) as both:
        yield both


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as result:
        result.command("Emulation.setTimezoneOverride", timezoneId="Europe/Vienna")
        yield result


@pytest.fixture
def page(browser: Browser, service: tuple[str, ServiceState]) -> Iterator[Browser]:
    """The page, just opened; nothing may have gone wrong in it in the end."""
    browser.complaints.clear()
    browser.open(service[0])
    browser.until("document.querySelector('#cameras input')")
    yield browser
    refused = "Failed to load resource: the server responded with a status of 4"
    assert [one for one in browser.complaints if not one.startswith(refused)] == []


def fill(page: Browser, selector: str, value: str) -> None:
    page.value(f"(box => {{ box.focus(); box.value = '' }})(document.querySelector('{selector}'))")
    page.type(value)


def click(page: Browser, selector: str) -> None:
    page.value(f"document.querySelector({selector!r}).click()")


def search(page: Browser) -> None:
    click(page, "#search")
    page.until("/candidate|Nobody/.test(document.getElementById('status').textContent)")


def listed(page: Browser, name: str) -> list[str]:
    texts: list[str] = page.value(
        f"[...document.querySelectorAll('#{name} button')].map(one => one.dataset.id + ': ' + "
        "one.querySelector('b').textContent)"
    )
    return texts


def after(matches: tuple[GalleryMatch, ...]) -> list[str]:
    return [
        f"{one.id}: {one.rank}. " + ("mu not asked" if one.mu is None else f"mu {one.mu:.3f}")
        for one in matches
    ]


def before(matches: tuple[GalleryMatch, ...]) -> list[str]:
    return [f"{one.id}: {one.rank}. distance {one.encoder_distance:.3f}" for one in matches]


def test_a_stored_row_is_searched_before_and_after(page: Browser, gallery: Gallery) -> None:
    fill(page, "#row", "2-1")
    fill(page, "#top", "5")
    search(page)
    assert listed(page, "after") == after(gallery.search(id="2-1", top_k=5).matches)
    plain = gallery.search(id="2-1", top_k=5, method="none", candidates=0).matches
    assert listed(page, "before") == before(plain)
    page.until("document.querySelectorAll('li img').length === 10")  # every crop, decoded
    assert page.value("document.querySelector('li img').naturalWidth") == 64


def test_a_crop_is_searched(page: Browser, gallery: Gallery, tmp_path: Path) -> None:
    crop = tmp_path / "crop.jpg"
    crop.write_bytes(jpeg(4, 2, 1))
    page.give("#files", crop)
    search(page)
    assert listed(page, "after") == after(gallery.search(crop).matches)


def test_cameras_and_times_filter(page: Browser, gallery: Gallery) -> None:
    fill(page, "#row", "3-1")
    for camera in (2, 3):
        click(page, f"#cameras input[value='{camera}']")
    for name, text in (("since", "2026-11-29T13:30:00"), ("until", "2026-11-29T14:30:00")):
        page.value(f"document.getElementById('{name}').value = '{text}'")
    search(page)
    found = gallery.search(id="3-1", cameras=[2, 3], since=NOON + 1800, until=NOON + 5400).matches
    assert found
    assert {one.camera for one in found} == {2}
    assert listed(page, "after") == after(found)
    assert page.value("document.querySelector('#after .facts').innerText").count("14:00:00") == 1
    assert page.value("document.querySelectorAll('#cameras :checked').length") == 2


def test_names_that_are_markup_are_text(page: Browser) -> None:
    fill(page, "#row", "1-1")
    click(page, "#cameras input[value='4']")
    search(page)
    assert page.value("document.querySelector('#after .name').textContent") == f"track {HOSTILE}"
    click(page, "#after button")
    page.until("document.getElementById('detail').open")
    texts = page.value("[...document.querySelectorAll('#detail dd')].map(one => one.textContent)")
    assert {HOSTILE, f"track {HOSTILE}", f"case {HOSTILE}"} <= set(texts)
    click(page, "#detail-erase")
    assert page.value("document.querySelectorAll('img[src=x]').length") == 0
    assert page.value("typeof window.pwned") == "undefined"


def test_markup_is_made_of_no_text(page: Browser) -> None:
    """Whoever writes innerHTML into the page one day is told by every browser that knows how."""
    refused = "(() => { try { document.body.innerHTML = 'x' } catch { return true } })()"
    assert page.value(refused) is True
    page.complaints.clear()


def test_the_policy_lets_nothing_else_run() -> None:
    text, policy = read_page()
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == 2
    assert "http" not in text  # no other origin
    assert " on" not in "".join(part.partition(">")[0] for part in text.split("<")[1:])


def test_erasing_asks_first(page: Browser, gallery: Gallery) -> None:
    gallery.add([jpeg(9, 1, 0), jpeg(9, 2, 0)], camera=[5, 5], time=NOON, id=["9-1", "9-2"],
                track=["nine", None], subject="case 9")  # fmt: skip
    fill(page, "#row", "9-1")
    search(page)
    assert "9-2" in {text.partition(":")[0] for text in listed(page, "after")}
    for leave in ("#erase-no", None):
        click(page, "#after button[data-id='9-2']")
        page.until("document.getElementById('detail').open")
        click(page, "#detail-erase")
        assert page.value("document.getElementById('erase-yes').disabled")  # nothing is chosen
        click(page, "#erase-choices label:last-of-type input")
        if leave is not None:
            click(page, leave)
    assert None not in gallery.get(["9-1", "9-2"])
    click(page, "#erase-yes")
    page.until("!document.getElementById('erased').hidden")
    assert gallery.get(["9-1", "9-2"]) == [None, None]
    assert page.value("JSON.parse(document.getElementById('receipt-json').textContent).rows") == 2
    page.until("document.getElementById('result').hidden")  # the query itself is gone
    assert page.value("document.querySelectorAll('li, .shot img, dd').length") == 0


@pytest.mark.parametrize(
    ("row", "content", "said"),
    [("nobody", b"", "nobody"), ("", b"no image", "crop"), ("", b"", "Drop a crop")],
)
def test_what_is_wrong_is_said(
    page: Browser, tmp_path: Path, row: str, content: bytes, said: str
) -> None:
    fill(page, "#row", row)
    if content:
        (tmp_path / "file.jpg").write_bytes(content)
        page.give("#files", tmp_path / "file.jpg")
    click(page, "#search")
    page.until("document.querySelector('#problem[role=alert]').textContent")
    assert said in page.value("document.getElementById('problem').textContent")
    assert page.value("document.getElementById('result').hidden")


def test_without_a_gallery_it_says_so(
    browser: Browser, service: tuple[str, ServiceState], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ServiceState, "gallery", None)
    browser.open(service[0])
    browser.until("document.getElementById('problem').textContent.includes('--gallery')")


def test_tokens_are_asked_for_and_kept_nowhere(
    browser: Browser, service: tuple[str, ServiceState], gallery: Gallery
) -> None:
    url, state = service
    state.tokens = Tokens(
        {
            hashlib.sha256(READ.encode()).hexdigest(): "read",
            hashlib.sha256(ADMIN.encode()).hexdigest(): "admin",
        }
    )
    try:
        browser.open(url)
        for given, told in (("wrong" * 4, ""), (READ, "none of the service")):
            browser.until("document.getElementById('token').open")
            assert told in browser.value("document.getElementById('token-problem').textContent")
            browser.type(given)  # the dialog has the focus
            browser.press("Enter")
            browser.until("!document.getElementById('token').open || "
                          "document.getElementById('token-problem').textContent")  # fmt: skip
        browser.until("document.querySelector('#cameras input')")
        fill(browser, "#row", "5-1")
        search(browser)
        browser.until("document.querySelectorAll('li img').length > 4")  # crops, with the token
        click(browser, "#after button")
        browser.until("document.getElementById('detail').open")
        click(browser, "#detail-erase")
        click(browser, "#erase-choices input")
        click(browser, "#erase-yes")
        browser.until("document.getElementById('erase-problem').textContent")
        assert "admin" in browser.value("document.getElementById('erase-problem').textContent")
        assert gallery.stats().rows == 19
        kept = "JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])"
        assert READ not in browser.value(kept + " + document.documentElement.outerHTML")
        assert READ not in browser.value(
            "[...document.querySelectorAll('input')].map(one => one.value).join()"
        )
        browser.open(url)  # anew: it is asked for again
        browser.until("document.getElementById('token').open")
        browser.press("Escape")
        browser.until("document.getElementById('problem').textContent")
    finally:
        state.tokens = None


def test_keys_are_enough(page: Browser) -> None:
    focus = "document.activeElement.id || document.activeElement.value || ''"
    way = []
    for _ in range(30):
        page.press("Tab")
        if (here := page.value(focus)) not in way:  # parts of a moment are stops of their own
            way.append(here)
        if here == "search":
            break
    assert way == ["files", "row", *"1234", "since", "until", "own", "top", "deadline", "search"]
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.value(outline) == "solid"
    fill(page, "#row", "6-1")
    page.press("Enter")
    page.until("document.querySelectorAll('#after button').length")
    page.value("document.getElementById('search').focus()")
    page.press("Tab")
    assert page.value("document.activeElement.parentElement.parentElement.id") == "before"
    page.press("Enter")
    page.until("document.getElementById('detail').open")
    assert page.value("document.getElementById('detail').contains(document.activeElement)")
    page.press("Escape")
    page.until("!document.getElementById('detail').open")
    assert page.value("document.activeElement.parentElement.parentElement.id") == "before"


def test_every_control_has_a_name(page: Browser) -> None:
    named = "[...document.querySelectorAll('input, select')].filter(one => !one.labels.length)"
    assert page.value(f"{named}.length") == 0


def test_it_fits_a_telephone(page: Browser) -> None:
    page.command(
        "Emulation.setDeviceMetricsOverride", width=360, height=800, deviceScaleFactor=1,
        mobile=False,
    )  # fmt: skip
    try:
        fill(page, "#row", "6-1")
        search(page)
        assert page.value("document.documentElement.scrollWidth") <= 360
    finally:
        page.command("Emulation.clearDeviceMetricsOverride")
