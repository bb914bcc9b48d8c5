"""What a model is shown and what is posted: attachments, images, voice, order, lateness, neutral text."""

from __future__ import annotations

import base64
import itertools
import time
from typing import TYPE_CHECKING, Any

import pytest

from relay.demo.chatwoot.records import contact
from tests.agent.conftest import Model, customer, message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.demo.chatwoot import ChatwootStandIn
    from tests.agent.conftest import RunningAgent

    Start = Callable[..., Awaitable[RunningAgent]]

VOICE = {"file_type": "audio", "file_size": 9_000, "data_url": "https://elsewhere.example/voice.ogg"}


@pytest.fixture
def asking(model: Model) -> dict[str, Any]:
    """Settings with the model."""
    return {"llm_base_url": model.url, "llm_model": "small"}


async def test_a_voice_message_is_named_to_the_model(
    start_agent: Start, chatwoot: ChatwootStandIn, model: Model, asking: dict[str, Any]
) -> None:
    agent = await start_agent(**asking)
    await agent.post(customer(chatwoot, None, attachments=[VOICE]))
    assert model.turns == [("user", "[voice message, 9 kB]")]
    await agent.post(customer(chatwoot, None, attachments=[VOICE | {"transcribed_text": "Hello?"}]))
    assert model.turns[-1] == ("user", "[voice message, 9 kB] transcript: Hello?")


async def test_a_voice_message_is_transcribed_where_that_is_configured(
    start_agent: Start, chatwoot: ChatwootStandIn, model: Model, asking: dict[str, Any]
) -> None:
    agent = await start_agent(**asking, transcribe_base_url=model.url)
    attachment = chatwoot.files.attach("https://public.example", "audio", "voice.ogg", b"OggS" * 500, "audio/ogg")
    await agent.post(customer(chatwoot, None, attachments=[attachment, VOICE]))
    assert model.recordings == [("whisper-1", b"OggS" * 500)]
    said = "[voice message, 2 kB] transcript: Hello, it's about my order.\n[voice message, 9 kB]"
    assert model.turns == [("user", said)]  # the second one is on a foreign host, and is never read
    model.spoken = ""
    assert (await agent.post(customer(chatwoot, None, attachments=[attachment]))).status_code == 200
    assert model.turns[-1] == ("user", "[voice message, 2 kB]")


async def test_images_go_to_models_that_take_them_and_only_there(
    start_agent: Start, chatwoot: ChatwootStandIn, model: Model, asking: dict[str, Any]
) -> None:
    attachment = chatwoot.files.attach(chatwoot.url, "image", "a.png", b"\x89PNG", "image/png")
    page = chatwoot.files.attach(chatwoot.url, "image", "b.html", b"<html>", "text/html")
    payload = customer(chatwoot, "This one", attachments=[attachment, page])
    await (await start_agent(**asking)).post(payload)
    assert model.turns == [("user", "This one\n[image, 4 bytes]\n[image, 6 bytes]")]
    assert chatwoot.files.asked == []
    await (await start_agent(**asking, llm_images=True)).post(customer(chatwoot, "And", attachments=[attachment]))
    url = "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()
    assert model.turns[-1] == (
        "user",
        [{"type": "text", "text": "And\n[image, 4 bytes]"}, {"type": "image_url", "image_url": {"url": url}}],
    )


async def test_what_holds_nothing_to_read_gets_a_note_that_says_so(
    start_agent: Start, chatwoot: ChatwootStandIn, model: Model, asking: dict[str, Any]
) -> None:
    agent = await start_agent(**asking)
    for text in (None, "", " \n "):
        assert (await agent.post(customer(chatwoot, text))).json()["status"] == "draft_ready"
        assert "nothing to read" in chatwoot.notes[-1]["content"]
        chatwoot.conversations[7].clear()
    assert model.asked == []


async def test_a_note_mentions_no_person_and_runs_no_liquid(
    start_agent: Start, chatwoot: ChatwootStandIn, model: Model, asking: dict[str, Any]
) -> None:
    hostile = "[Bob](mention://user/1/Bob) {{agent.email}} {% if a %}x{% endif %} \u202e\x00 men[x](mention://)tion://user/1/B"
    model.says = f"You wrote: {hostile}\ud800"
    answer = await (await start_agent(**asking)).post(customer(chatwoot, hostile))
    assert answer.status_code == 200
    (note,) = chatwoot.notes
    assert chatwoot.notified == []
    assert note["content"].startswith("You wrote: Bob { {agent.email}} { % if a %}x{ % endif %}")
    assert "mention://" not in note["content"]


async def test_a_long_draft_is_cut(start_agent: Start, chatwoot: ChatwootStandIn, model: Model, asking: Any) -> None:
    model.says = "x" * 200_000
    await (await start_agent(**asking)).post(customer(chatwoot))
    assert len(chatwoot.notes[0]["content"]) == 8_000
    assert chatwoot.notes[0]["content"].endswith("… (cut)")


async def test_a_late_draft_says_that_it_is_late(start_agent: Start, chatwoot: ChatwootStandIn) -> None:
    payload = customer(chatwoot, created_at=int(time.time()) - 3 * 3600 - 605)
    await (await start_agent()).post(payload)
    assert chatwoot.notes[0]["content"].startswith("[Late draft: the customer wrote 3 h 10 min ago]\n\n[Template draft")


async def test_the_prompt_names_the_customers_language_where_it_is_known(
    start_agent: Start, chatwoot: ChatwootStandIn, model: Model, asking: dict[str, Any]
) -> None:
    payload = customer(chatwoot, "Onde está?", sender=contact("João"))
    payload["conversation"]["additional_attributes"] = {"browser_language": "pt-BR"}
    await (await start_agent(**asking)).post(payload)
    assert model.turns == [("system", "The customer's browser is set to pt-BR."), ("user", "Onde está?")]
    assert "in the customer's language" in model.asked[0][1]["messages"][0]["content"]


async def test_fields_of_wrong_types_are_answered_in_good_order(
    start_agent: Start, chatwoot: ChatwootStandIn, model: Model, asking: dict[str, Any]
) -> None:
    agent = await start_agent(**asking)
    odd: list[Any] = [None, 5, True, "x", [], ["x"], {}, {"a": 1}, "\ud800", 2**70, -1]
    names = "id content sender account inbox conversation attachments content_attributes created_at private"
    chatwoot.add_message(7, "Hello")
    ids, offenders = itertools.count(950_000), []
    for field in names.split():
        for value in odd:
            answer = await agent.post(message(next(ids)) | {field: value})
            if answer.status_code != 200:
                offenders.append((field, value, answer.status_code, answer.text))
    assert offenders == []
