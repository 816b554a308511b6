"""Real clients' packages against a server of the taught model: `python real_clients.py PACKAGE URL`; fails by an assertion.

Run by the Python of an environment that has the packages, with nothing of this project at hand.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

os.environ |= {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "HF_HUB_OFFLINE": "1",
    "OPENAI_API_KEY": "none",
    "DO_NOT_TRACK": "1",
}
MODEL, QUESTION, FOUND, ANSWER = "base", "a天气", "晴", "a晴天"
ASKED = [{"role": "user", "content": QUESTION}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "", "parameters": CITY}}]
CALLED = {"city": "a"}


def test_openai(url: str) -> None:
    import openai
    from pydantic import BaseModel

    class Form(BaseModel):
        department: Literal["内科", "骨科"]

    class Forecast(BaseModel):
        city: Literal["a", "b"]

    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    chat, limit = client.chat.completions, {"model": MODEL, "max_tokens": 100}
    text = chat.create(messages=ASKED, **limit).choices[0].message.content
    chunks = list(chat.create(messages=ASKED, stream=True, stream_options={"include_usage": True}, **limit))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == text
    assert chunks[-1].usage.completion_tokens == chat.create(messages=ASKED, **limit).usage.completion_tokens
    plain = client.completions.create(prompt=QUESTION, **limit).choices[0].text
    streamed = client.completions.create(prompt=QUESTION, stream=True, **limit)
    assert "".join(chunk.choices[0].text for chunk in streamed) == plain
    assert [model.id for model in client.models.list()] == [client.models.retrieve(MODEL).id]

    with chat.stream(messages=ASKED, tools=TOOLS, **limit) as stream:
        helped = stream.get_final_completion().choices[0].message
    for message in (chat.create(messages=ASKED, tools=TOOLS, **limit).choices[0].message, helped):
        (call,) = message.tool_calls
        assert json.loads(call.function.arguments) == CALLED
        given = {"role": "tool", "tool_call_id": call.id, "content": FOUND}
        for back in (message, message.model_dump(), message.to_dict(), message.model_dump(exclude_none=True)):
            answer = chat.create(messages=[*ASKED, back, given], tools=TOOLS, **limit)
            assert answer.choices[0].message.content.strip() == ANSWER

    parsed = chat.parse(messages=ASKED, response_format=Form, **limit).choices[0].message
    assert parsed.parsed.department in ("内科", "骨科")
    for back in (parsed, parsed.model_dump()):
        assert chat.create(messages=[*ASKED, back, *ASKED], **limit).choices[0].finish_reason
    # Its own helper makes every function strict.
    strict = [openai.pydantic_function_tool(Forecast, name="weather")]
    chat.parse(messages=ASKED, tools=strict, **limit)
    (forced,) = chat.parse(messages=ASKED, tools=strict, tool_choice="required", **limit).choices[0].message.tool_calls
    assert forced.function.parsed_arguments.city in ("a", "b")
    told = chat.with_raw_response.create(messages=ASKED, user="me", metadata={"a": "b"}, store=False, **limit)
    assert told.headers["x-ignored-fields"] == "metadata, store, user"
    scored = chat.create(messages=ASKED, logprobs=True, top_logprobs=3, n=2, temperature=1, seed=1, stop=["x"], **limit)
    assert [len(choice.logprobs.content[0].top_logprobs) for choice in scored.choices] == [3, 3]
    assert chat.create(messages=ASKED, model=MODEL, max_completion_tokens=3).usage.completion_tokens == 3

    async def together() -> set[str]:
        many = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
        answers = await asyncio.gather(*[many.chat.completions.create(messages=ASKED, **limit) for _ in range(12)])
        return {answer.choices[0].message.content for answer in answers}

    assert asyncio.run(together()) == {text}


def test_langchain(url: str) -> None:
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI, OpenAI
    from pydantic import BaseModel

    @tool
    def weather(city: Literal["a", "b"]) -> str:
        """The weather."""
        return FOUND

    class Form(BaseModel):
        """A form."""

        department: Literal["内科", "骨科"]

    options = {"base_url": url, "api_key": "none", "max_retries": 0, "model": MODEL, "max_tokens": 100}
    chat = ChatOpenAI(**options)
    text = chat.invoke(QUESTION).content
    assert "".join(chunk.content for chunk in chat.stream(QUESTION)) == text
    assert [one.content for one in chat.batch([QUESTION] * 5)] == [text] * 5
    forced = chat.bind_tools([weather], tool_choice="any")
    parts = list(forced.stream(QUESTION))
    streamed = parts[0]
    for part in parts[1:]:
        streamed += part
    for message in (forced.invoke(QUESTION), streamed):
        (call,) = message.tool_calls
        talk = [SystemMessage("好"), HumanMessage(QUESTION), message, weather.invoke(call)]
        assert isinstance(talk[-1], ToolMessage)
        assert chat.bind_tools([weather], parallel_tool_calls=False).invoke(talk).response_metadata["finish_reason"]
    chat.bind_tools([weather], strict=True).invoke(QUESTION)
    for method in ("json_schema", "function_calling"):
        assert chat.with_structured_output(Form, method=method).invoke(QUESTION).department in ("内科", "骨科")
    assert chat.with_structured_output(Form, method="json_mode", include_raw=True).invoke(QUESTION)["raw"].content
    history = [HumanMessage(QUESTION, name="me"), AIMessage([{"type": "text", "text": "好"}]), HumanMessage(QUESTION)]
    assert chat.invoke(history).content
    complete = OpenAI(temperature=0, **options)
    assert "".join(complete.stream(QUESTION)) == complete.invoke(QUESTION)
    assert len(complete.generate([QUESTION, "你好"]).generations) == 2


def test_llama_index(url: str) -> None:
    from llama_index.core.agent.workflow import FunctionAgent
    from llama_index.core.llms import ChatMessage
    from llama_index.core.tools import FunctionTool
    from llama_index.llms.openai_like import OpenAILike
    from pydantic import BaseModel

    class Form(BaseModel):
        """A form."""

        department: Literal["内科", "骨科"]

    def weather(city: Literal["a", "b"]) -> str:
        """The weather."""
        return FOUND

    options = {
        "api_base": url,
        "api_key": "none",
        "max_retries": 0,
        "model": MODEL,
        "max_tokens": 100,
        "temperature": 0,
    }
    chat = OpenAILike(is_chat_model=True, is_function_calling_model=True, **options)
    asked, tool = [ChatMessage(role="user", content=QUESTION)], FunctionTool.from_defaults(weather)
    text = chat.chat(asked).message.content
    assert list(chat.stream_chat(asked))[-1].message.content == text == chat.complete(QUESTION).text
    called = chat.chat_with_tools([tool], user_msg=QUESTION, tool_required=True)
    (call,) = chat.get_tool_calls_from_response(called)
    given = ChatMessage(role="tool", content=FOUND, additional_kwargs={"tool_call_id": call.tool_id})
    assert chat.chat_with_tools([tool], chat_history=[*asked, called.message, given]).raw.choices[0].finish_reason
    assert chat.as_structured_llm(Form).complete(QUESTION).raw.department in ("内科", "骨科")
    plain = OpenAILike(is_chat_model=False, **options)
    assert list(plain.stream_complete(QUESTION))[-1].text == plain.complete(QUESTION).text

    async def run() -> str:
        return str(
            await FunctionAgent(tools=[tool], llm=OpenAILike(**chat.to_dict() | options), system_prompt="好").run(
                QUESTION
            )
        )

    assert isinstance(asyncio.run(run()), str)


def test_litellm(url: str) -> None:
    import litellm
    from pydantic import BaseModel

    class Form(BaseModel):
        department: Literal["内科", "骨科"]

    def ask(messages: list, provider: str = "openai", **more: object):
        return litellm.completion(
            model=f"{provider}/{MODEL}",
            messages=messages,
            api_base=url,
            api_key="none",
            max_tokens=100,
            num_retries=0,
            **more,
        )

    text = ask(ASKED).choices[0].message.content
    assert "".join(chunk.choices[0].delta.content or "" for chunk in ask(ASKED, stream=True)) == text
    assert ask(ASKED, "hosted_vllm").choices[0].message.content == text
    whole = litellm.stream_chunk_builder(list(ask(ASKED, tools=TOOLS, stream=True)))
    for message in (ask(ASKED, tools=TOOLS).choices[0].message, whole.choices[0].message):
        (call,) = message.tool_calls
        given = {"role": "tool", "tool_call_id": call.id, "name": "weather", "content": FOUND}
        for back in (message, message.model_dump()):
            assert ask([*ASKED, back, given], tools=TOOLS).choices[0].message.content.strip() == ANSWER
    assert Form.model_validate_json(ask(ASKED, response_format=Form).choices[0].message.content)


def test_instructor(url: str) -> None:
    import instructor
    import openai
    from pydantic import BaseModel, ConfigDict, field_validator

    class Form(BaseModel):
        # Without it the schema allows whatever else a model thinks of.
        model_config = ConfigDict(extra="forbid")
        department: Literal["内科", "骨科"]

    class Never(BaseModel):
        city: Literal["a"]

        @field_validator("city")
        @classmethod
        def _no(cls, value: str) -> str:
            raise ValueError("another one")

    def ask(mode: instructor.Mode, form: type[BaseModel], retries: int = 1):
        client = instructor.from_openai(openai.OpenAI(base_url=url, api_key="none", max_retries=0), mode=mode)
        return client.chat.completions.create(
            model=MODEL, messages=ASKED, response_model=form, max_tokens=300, max_retries=retries
        )

    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA, instructor.Mode.TOOLS_STRICT):
        assert ask(mode, Form).department in ("内科", "骨科")
    said = ""
    try:
        ask(instructor.Mode.TOOLS, Never, 3)
    except Exception as error:
        said = str(error)
    # The second and third request have the first reply in them, and what was wrong with it.
    assert "another one" in said and "Error code" not in said, said


def test_dspy(url: str) -> None:
    import dspy

    for model, kind in ((f"openai/{MODEL}", "chat"), (f"text-completion-openai/{MODEL}", "text")):
        asked = dspy.LM(model, model_type=kind, api_base=url, api_key="none", max_tokens=40, cache=False)
        assert len(asked(QUESTION)) == 1 and len(asked(QUESTION, n=3, temperature=1.0)) == 3


TASK = """
task: tiny_{kind}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/rows.jsonl}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{q}}}}"
{rest}
"""
GENERATE = """doc_to_target: "{{a}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 12, temperature: 0, do_sample: false}
metric_list: [{metric: exact_match}]"""
CHOOSE = """doc_to_choice: ["a", "b"]
doc_to_target: 0
metric_list: [{metric: acc}]"""


def test_lm_eval(url: str) -> None:
    folder = Path(tempfile.mkdtemp())
    rows = [{"q": QUESTION, "a": "a"}, {"q": "b天气", "a": "b"}, {"q": "你好", "a": "好"}]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for kind, rest in (("generate_until", GENERATE), ("multiple_choice", CHOOSE)):
        (folder / f"{kind}.yaml").write_text(TASK.format(kind=kind, folder=folder, rest=rest))
    own = f"tokenizer={sys.argv[3]},max_length=900"
    for model, path, tasks, more in (
        ("local-completions", "completions", "tiny_generate_until,tiny_multiple_choice", f"{own},num_concurrent=2"),
        ("local-completions", "completions", "tiny_multiple_choice", f"{own},tokenized_requests=False"),
        ("local-chat-completions", "chat/completions", "tiny_generate_until", "num_concurrent=3"),
    ):
        arguments = f"base_url={url}/{path},model={MODEL},max_retries=1,{more}"
        command = [
            str(Path(sys.executable).parent / "lm_eval"),
            "--model",
            model,
            "--model_args",
            arguments,
            "--tasks",
            tasks,
        ]
        command += ["--include_path", str(folder), *(["--apply_chat_template"] if "chat" in model else [])]
        environment = os.environ | {"HF_HOME": str(folder), "HF_DATASETS_CACHE": str(folder)}
        result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert result.returncode == 0 and "|tiny_" in result.stdout, result.stderr[-2000:]


def test_evalscope(url: str) -> None:
    from evalscope import TaskConfig, run_task

    folder = Path(tempfile.mkdtemp())
    rows = [{"query": QUESTION, "response": "a"}, {"query": "你好", "response": "好"}]
    (folder / "example.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for stream in (False, True):
        config = TaskConfig(
            model=MODEL, api_url=url, api_key="none", eval_type="openai_api", datasets=["general_qa"],
            dataset_args={"general_qa": {"local_path": str(folder), "subset_list": ["example"]}},
            generation_config={"max_tokens": 20, "temperature": 0.0, "stream": stream}, work_dir=str(folder / "out"),
        )  # fmt: skip
        assert run_task(config)["general_qa"].metrics


if __name__ == "__main__":
    globals()[f"test_{sys.argv[1]}"](sys.argv[2])
