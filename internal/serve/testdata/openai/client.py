"""Asks the language models of a server by OpenAI's client, unchanged.

usage: client.py URL CHAT EMBED
"""

import asyncio
import json
import sys

import openai

url, chat, embed = sys.argv[1:]
client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
hi = [{"role": "user", "content": "Hi"}]
fixed = {"model": chat, "temperature": 0, "max_tokens": 8}


def check(what, good):
    assert good, what


names = [m.id for m in client.models.list()]
check(names, chat in names and embed in names)
check("retrieve", client.models.retrieve(chat).id == chat)

whole = client.chat.completions.create(messages=hi, **fixed)
text = whole.choices[0].message.content
check(whole, text and whole.model == chat and whole.usage.completion_tokens == 8 and whole.choices[0].finish_reason == "length")

pieces, usage = [], None
for chunk in client.chat.completions.create(messages=hi, stream=True, stream_options={"include_usage": True}, **fixed):
    usage = chunk.usage or usage
    pieces += [c.delta.content for c in chunk.choices if c.delta.content]
check(pieces, "".join(pieces) == text and len(pieces) > 2 and usage.completion_tokens == 8)

with client.chat.completions.create(messages=hi, stream=True, **{**fixed, "max_tokens": 100000}) as endless:
    next(iter(endless))  # and leave
check("after one that was left", client.chat.completions.create(messages=hi, **fixed).choices[0].message.content == text)

logs = client.chat.completions.create(messages=hi, logprobs=True, top_logprobs=3, **fixed).choices[0].logprobs.content
check(logs, len(logs) == 8 and len(logs[0].top_logprobs) == 3 and logs[0].logprob <= 0)

colours = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}},
    "required": ["colour"],
    "additionalProperties": False,
}
form = {"type": "json_schema", "json_schema": {"name": "colours", "schema": colours, "strict": True}}
said = client.chat.completions.create(messages=hi, response_format=form, **{**fixed, "max_tokens": 64})
check(said, json.loads(said.choices[0].message.content)["colour"] in ("red", "blue"))

# Whether a model calls tools is its chat template's business; the form is passed on.
tool = {"type": "function", "function": {"name": "paint", "description": "Paints.", "parameters": colours}}
past = [
    *hi,
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "paint", "arguments": '{"colour":"red"}'}}]},
    {"role": "tool", "tool_call_id": "1", "content": "painted"},
]
called = client.chat.completions.create(messages=past, tools=[tool], tool_choice="auto", **fixed)
check(called, called.usage.completion_tokens == 8)

plain = client.completions.create(prompt="Hi", **fixed)
check(plain, plain.choices[0].text and plain.usage.total_tokens > 8)

response = client.responses.create(model=chat, input="Hi", max_output_tokens=8, temperature=0)
check(response, response.output_text)
kinds = [e.type for e in client.responses.create(model=chat, input="Hi", max_output_tokens=8, stream=True)]
check(kinds, "response.output_text.delta" in kinds and kinds[-1].startswith("response."))

vectors = client.embeddings.create(model=embed, input=["one", "two"])
check(vectors, len(vectors.data) == 2 and len(vectors.data[0].embedding) > 8 and vectors.data[0].embedding != vectors.data[1].embedding)


def fails(kind, code, **q):
    try:
        client.chat.completions.create(**{"messages": hi, **fixed, **q})
    except kind as e:
        check(e, code is None or e.code == code)
        return
    raise AssertionError(f"{q} did not fail with {kind}")


fails(openai.NotFoundError, "model_not_found", model="nobody")
fails(openai.BadRequestError, None, model=embed)
fails(openai.BadRequestError, None, messages="none")
fails(openai.BadRequestError, "context_length_exceeded", messages=[{"role": "user", "content": "long " * 500}])
fails(openai.APIStatusError, None, max_tokens=100000, extra_headers={"X-Request-Timeout": "0.001"})


async def several():
    a = openai.AsyncOpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
    answers = await asyncio.gather(*(a.chat.completions.create(messages=hi, **fixed) for _ in range(6)))
    check("several", {x.choices[0].message.content for x in answers} == {text})


asyncio.run(several())
print("answers agree")
