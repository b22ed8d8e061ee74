"""Drives a gateway with OpenAI's own Python package: python openai_client.py BASE_URL."""

import sys

import openai

base = sys.argv[1]
client = openai.OpenAI(base_url=f"{base}/v1", api_key="sk-demo-enterprise", max_retries=0)

models = [model.id for model in client.models.list()]
assert models == ["offline-answers"], models


def ask(text, **more):
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.with_raw_response.create(
        model="offline-answers", messages=messages, **more
    )


first = ask("What is the capital of France?")
answer = first.parse()
assert "Paris" in answer.choices[0].message.content, answer
assert answer.choices[0].finish_reason == "stop"
assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
assert first.headers["x-inferkit-cache"] == "miss", first.headers
assert int(first.headers["x-ratelimit-remaining-tokens"]) > 0

again = ask("What is the capital of France?")
assert again.headers["x-inferkit-cache"] == "exact", again.headers
assert again.parse().choices[0].message.content == answer.choices[0].message.content
assert again.parse().usage.total_tokens == answer.usage.total_tokens
reworded = ask("what's the capital of france?")
assert reworded.headers["x-inferkit-cache"] == "semantic", reworded.headers
assert float(reworded.headers["x-inferkit-similarity"]) > 0.93
fresh = ask("What is the capital of France?", extra_headers={"cache-control": "no-cache"})
assert fresh.headers["x-inferkit-cache"] == "miss", fresh.headers

for question in ["What is the capital of Italy?", "What is the capital of Italy?"]:
    text, finish, usage = "", None, None
    stream = client.chat.completions.create(
        model="offline-answers",
        messages=[{"role": "user", "content": question}],
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
            finish = chunk.choices[0].finish_reason or finish
        usage = chunk.usage or usage
    assert "Rome" in text and finish == "stop" and usage.completion_tokens > 0, (text, finish, usage)

# A conversation: the second turn sends its own message only.
session = {"x-session-id": "from-python"}
ask("What is the capital of Japan?", extra_headers=session)
second = ask("What is the capital of Spain?", extra_headers=session)
assert second.headers["x-session-id"] == "from-python"

# The package asks for base64 unless it is told otherwise.
vectors = client.embeddings.create(model="all-MiniLM-L6-v2", input=["red shoes", "red shoe"]).data
assert [len(vector.embedding) for vector in vectors] == [384, 384]
likeness = sum(a * b for a, b in zip(vectors[0].embedding, vectors[1].embedding))
assert 0.8 < likeness < 1.0, likeness
floats = client.embeddings.create(
    model="all-MiniLM-L6-v2", input="red shoes", encoding_format="float"
).data[0]
assert max(abs(a - b) for a, b in zip(floats.embedding, vectors[0].embedding)) < 1e-6


def fails(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind} was expected")


error = fails(
    openai.AuthenticationError,
    lambda: openai.OpenAI(base_url=f"{base}/v1", api_key="wrong", max_retries=0).models.list(),
)
assert error.body["code"] == "invalid_api_key", error.body
error = fails(openai.NotFoundError, lambda: client.embeddings.create(model="nope", input="a"))
assert "all-MiniLM-L6-v2" in error.message, error.message
fails(openai.BadRequestError, lambda: client.embeddings.create(model="all-MiniLM-L6-v2", input=[]))
free = openai.OpenAI(base_url=f"{base}/v1", api_key="sk-demo-free", max_retries=0)
error = None
for _ in range(80):
    try:
        free.models.list()
    except openai.RateLimitError as limited:
        error = limited
        break
assert error is not None, "60 requests a minute are allowed"
assert error.code == "rate_limit_exceeded" and int(error.response.headers["retry-after"]) >= 1
assert error.response.headers["content-type"] == "application/problem+json"
print("ok")
