"""What Chatwoot is answered (DESIGN, 2)."""


async def test_smoke(relay, agent, rows):
    answer = await relay.post({"event": "message_created", "id": 1, "conversation": {"id": 1}})
    assert answer.status_code == 200, answer.text
    assert rows.facts("support.webhook.retry")[0][0]["success"] is True
