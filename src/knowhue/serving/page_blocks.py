"""The page's layout in gradio, and which event calls what."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr

from knowhue.images.files import SUFFIXES
from knowhue.serving import page_parts as parts
from knowhue.serving.page_cards import stage as stage_of
from knowhue.serving.page_desk import Sitting
from knowhue.serving.page_events import Events, Shown, example_files
from knowhue.serving.studies import panel

HERE = Path(__file__).parent
TICK_SECONDS = 3.0
_CLICKS = (
    "element.addEventListener('click', (event) => { const found = event.target.closest('[data-event]'); "
    "if (found) trigger(found.dataset.event, { ...found.dataset }); });"
)
"""Buttons in the page's own HTML name the event that they are."""
_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
_LIVE: dict[str, Any] = _QUIET | {"trigger_mode": "always_last"}


def build(events: Events, studies: Sequence[Path], upload_folder: Path) -> gr.Blocks:
    """The page.

    Args:
        events: what a visitor may do.
        studies: study folders that are shown.
        upload_folder: where gradio puts uploads until they are taken in.
    """
    blocks = gr.Blocks(title="Knowhue", analytics_enabled=False, delete_cache=(60, 300), fill_width=True)
    with blocks:
        gr.HTML(_header(events), elem_id="masthead", js_on_load=None, apply_default_css=False)
        with gr.Tabs():
            with gr.Tab("Colour"):
                _colour_tab(blocks, events, upload_folder)
            with gr.Tab("Studies") as tab:
                _studies_tab(tab, studies)
    blocks.unload(_forgetting(events))
    blocks.queue(max_size=events.settings.queue_length, api_open=False)
    return blocks


def _header(events: Events) -> str:
    return str(
        parts.heading(events.models)
        + parts.Markup(
            '<nav><a href="docs">API</a><button type="button" id="theme" class="quiet">Light or dark</button></nav>'
        )
    )


def _colour_tab(blocks: gr.Blocks, events: Events, upload_folder: Path) -> None:
    with gr.Row(elem_id="bench", equal_height=False):
        with gr.Column(elem_id="intake", min_width=0):
            photos = gr.File(
                label="Drop, paste or choose photos", show_label=False, file_count="multiple",
                file_types=sorted(SUFFIXES), elem_id="photos", height=120,
            )  # fmt: skip
            examples = _html(parts.examples(example_files()), "examples")
        with gr.Column(elem_id="results", min_width=0):
            status = _html(parts.says(""), "status")
            stage = gr.HTML(
                str(stage_of(None, {}, events.models, "")), elem_id="stage", apply_default_css=False,
                js_on_load=(HERE / "page.js").read_text(encoding="utf-8"),
            )  # fmt: skip
            gallery = _html(parts.gallery(Sitting(), events.models), "gallery")
        with gr.Column(elem_id="tuning", min_width=0):
            strength = _percent("Strength", "Less is closer to the gray photo.", 100)
            saturation = _percent("Saturation", "More is more vivid.", 200)
            unsure = gr.Checkbox(
                label="Show where the colours are unsure",
                info="Pinker where the model answers otherwise when it looks again.",
                elem_id="unsure",
            )
            _html(parts.palette(), "palette")
            points = _html(parts.points(()), "points")
    shown = [stage, gallery, points, status]

    async def take(files: Any, request: gr.Request) -> list[Any]:
        taken = _collected(_paths(files), upload_folder)
        return [None, *_strings(await events.take(_session(request), taken))]

    async def example(event: gr.EventData, request: gr.Request) -> list[str]:
        return _strings(await events.example(_session(request), str(_of(event, "name"))))

    async def choose(event: gr.EventData, request: gr.Request) -> list[str]:
        return _strings(await events.choose(_session(request), str(_of(event, "key"))))

    async def remove(event: gr.EventData, request: gr.Request) -> list[str]:
        return _strings(await events.remove(_session(request), str(_of(event, "key"))))

    async def tune(strong: float, vivid: float, is_unsure: bool, request: gr.Request) -> list[str]:
        return _strings(await events.tune(_session(request), strong, vivid, is_unsure))

    async def refresh(request: gr.Request) -> str:
        return str(await events.refresh(_session(request)))

    async def pin(event: gr.EventData, request: gr.Request) -> list[str]:
        where = float(_of(event, "x")), float(_of(event, "y"))
        return _strings(await events.pin(_session(request), *where, str(_of(event, "colour"))))

    async def unpin(event: gr.EventData, request: gr.Request) -> list[str]:
        return _strings(await events.unpin(_session(request), int(_of(event, "index"))))

    async def unpin_all(request: gr.Request) -> list[str]:
        return _strings(await events.unpin(_session(request), None))

    photos.upload(take, photos, [photos, *shown], preprocess=False, **_QUIET)
    examples.select(example, None, shown, **_QUIET)
    gallery.select(choose, None, shown, **_QUIET)
    gallery.delete(remove, None, shown, **_QUIET)
    stage.select(pin, None, shown, **_QUIET)
    points.delete(unpin, None, shown, **_QUIET)
    points.clear(unpin_all, None, shown, **_QUIET)
    for control in (strength, saturation, unsure):
        control.change(tune, [strength, saturation, unsure], shown, **_LIVE)
    for slider in (strength, saturation):
        slider.release(refresh, None, gallery, **_LIVE)


def _studies_tab(tab: gr.Tab, studies: Sequence[Path]) -> None:
    def now() -> str:
        return str(panel(studies))

    shown = (
        _html(panel(()), "studies") if not studies else gr.HTML(elem_id="studies", apply_default_css=False)
    )
    if studies:
        timer = gr.Timer(TICK_SECONDS)
        tab.select(now, None, shown, **_QUIET)
        timer.tick(now, None, shown, **_LIVE)


def _html(value: Any, name: str) -> gr.HTML:
    return gr.HTML(str(value), elem_id=name, js_on_load=_CLICKS, apply_default_css=False)


def _percent(label: str, info: str, maximum: int) -> gr.Slider:
    return gr.Slider(
        0, maximum, 100, step=1, label=f"{label}, %", info=info, elem_id=label.lower(), buttons=["reset"]
    )


def _session(request: gr.Request) -> str:
    return request.session_hash or ""


def _of(event: gr.EventData, name: str) -> Any:
    """What the browser said with an event; it may say anything."""
    value = event._data.get(name) if isinstance(event._data, dict) else None
    if not isinstance(value, str | int | float):
        raise gr.Error("The page sent something that it should not.")
    return value


def _strings(shown: Shown) -> list[str]:
    return [str(each) for each in shown]


def _paths(files: Any) -> list[str]:
    """Where uploads lie, from what the browser says; gradio's own reading of it leaves an empty file for each."""
    each = files if isinstance(files, list) else [files]
    return [file["path"] for file in each if isinstance(file, dict) and isinstance(file.get("path"), str)]


def _collected(files: Sequence[str], folder: Path) -> list[tuple[str, bytes]]:
    """Names and bytes of uploads, whose files are gone afterwards."""
    found = []
    for file in map(Path, files):
        if not file.resolve().is_relative_to(folder.resolve()):
            continue
        with suppress(FileNotFoundError):  # two visitors with the same file share its place
            found.append((file.name, file.read_bytes()))
            file.unlink()
        with suppress(OSError):  # the same image by another name is still there
            file.parent.rmdir()
    return found


def _forgetting(events: Events) -> Any:
    async def forget(request: gr.Request) -> None:
        events.desk.forget(_session(request))

    return forget
