"""Faults of served models: what each is, in a sentence, and what mends it."""

from typing import NamedTuple

from tuneline.formats.html import Text


class Fault(NamedTuple):
    sentence: Text
    remedy: Text


FAULTS: dict[str, Fault] = {
    "second_bos": Fault(
        Text("Its prompts begin with the BOS token twice.", "提示词开头的 BOS 词元重复了一次。"),
        Text(
            "The chat template writes one, and the server's tokenizer adds another: switch off the tokenizer's "
            "(`add_bos_token: false` in tokenizer_config.json; GGUF: tokenizer.ggml.add_bos_token false), or, where a client "
            "renders the template itself, send messages to /v1/chat/completions instead.",
            "对话模板写了一个，服务端的分词器又加了一个：关闭分词器的那个"
            "（tokenizer_config.json 的 add_bos_token: false；GGUF 的 "
            "tokenizer.ggml.add_bos_token）；若由客户端自行渲染模板，改为把消息发给 /v1/chat/completions。",
        ),
    ),
    "no_bos": Fault(
        Text("Its prompts begin without the BOS token that training had.", "提示词缺少训练时开头的 BOS 词元。"),
        Text(
            "Serve the exported folder's own chat template, which writes it, or let the tokenizer add it.",
            "使用导出目录自带的对话模板（其中写有 BOS），或让分词器添加。",
        ),
    ),
    "added_bos": Fault(
        Text("Its prompts begin with a token that training had not.", "提示词开头多出训练时没有的词元。"),
        Text("Switch off `add_bos_token` in tokenizer_config.json.", "关闭 tokenizer_config.json 的 add_bos_token。"),
    ),
    "default_system_prompt": Fault(
        Text(
            "A system prompt that training had not is put into prompts without one.",
            "服务端给没有系统提示的对话加上了默认系统提示，训练时没有它。",
        ),
        Text(
            "Serve the exported chat_template.jinja (vLLM: --chat-template; llama.cpp: --chat-template-file), and remove the "
            "server's own system prompt (Ollama: SYSTEM of the Modelfile).",
            "使用导出的 chat_template.jinja（vLLM：--chat-template；llama.cpp：--chat-template-file），"
            "并去掉服务端自带的系统提示"
            "（Ollama：Modelfile 的 SYSTEM）。",
        ),
    ),
    "no_generation_prompt": Fault(
        Text("Its prompts end after the question, without what opens the answer.", "提示词止于问题，没有引出回答的生成提示。"),
        Text(
            "Ask for it: `add_generation_prompt: true`, and a chat template that heeds it.",
            "请求时设 add_generation_prompt: true，并使用支持它的对话模板。",
        ),
    ),
    "other_template": Fault(
        Text("Its prompts are made by another chat template.", "提示词由另一个对话模板生成。"),
        Text(
            "Serve the exported chat_template.jinja (vLLM: --chat-template; llama.cpp: --jinja --chat-template-file; Ollama: "
            "TEMPLATE of the Modelfile), not one that the server guesses by the model's name.",
            "使用导出的 chat_template.jinja（vLLM：--chat-template；llama.cpp：--jinja --chat-template-file；"
            "Ollama：Modelfile 的 "
            "TEMPLATE），不用服务端按模型名猜测的模板。",
        ),
    ),
    "whitespace": Fault(
        Text("Its prompts differ from training's in white space.", "提示词的空白字符与训练时不同。"),
        Text(
            "Something trims the messages or the template's line breaks: serve the exported chat_template.jinja unchanged.",
            "消息或模板中的换行被去掉：原样使用导出的 chat_template.jinja。",
        ),
    ),
    "other_tokenizer": Fault(
        Text("The same text becomes other tokens there.", "同样的文本被切成不同的词元。"),
        Text(
            "Serve the exported tokenizer.json; a conversion (GGUF) has another pre-tokenizer: convert with the newest one.",
            "使用导出的 tokenizer.json；若经转换（GGUF），其预分词器不同：请用最新的转换程序。",
        ),
    ),
    "truncated_prompt": Fault(
        Text("Long prompts are cut there.", "较长的提示词被截断。"),
        Text(
            "Raise the server's context (vLLM: --max-model-len; llama.cpp: -c; Ollama: num_ctx).",
            "增大服务端上下文（vLLM：--max-model-len；llama.cpp：-c；Ollama：num_ctx）。",
        ),
    ),
    "thinking": Fault(
        Text("Thinking is switched on there and was off in evaluation, or the other way.", "思考开关与评测时相反。"),
        Text(
            'Send `chat_template_kwargs: {"enable_thinking": …}` as evaluation has it, or set it where the server starts.',
            "请求中按评测设置 chat_template_kwargs 的 enable_thinking，或在服务启动时设定。",
        ),
    ),
    "adapter_not_loaded": Fault(
        Text("It answers as the base does: the adapter is not in use.", "回答与基座一致：适配器未生效。"),
        Text(
            "Name the adapter as the model (vLLM: --enable-lora --lora-modules NAME=…, then --model NAME here), or serve the "
            "merged folder models/merged.",
            "请求适配器的名字（vLLM：--enable-lora --lora-modules NAME=…，这里用 --model NAME），或部署 models/merged。",
        ),
    ),
    "adapter_scale": Fault(
        Text("The adapter is applied at another scale.", "适配器的缩放系数不同。"),
        Text(
            "The scale is alpha / r (alpha / √r with rsLoRA) of adapter_config.json: convert again, or serve models/merged, "
            "which needs no scale (llama.cpp: --lora-scaled … 1).",
            "缩放系数为 adapter_config.json 中的 alpha / r（rsLoRA 为 alpha / √r）：重新转换，或部署无需缩放的 models/merged"
            "（llama.cpp：--lora-scaled … 1）。",
        ),
    ),
    "other_adapter": Fault(
        Text(
            "It computes with other weights than this revision's: another revision's adapter, or another base.",
            "权重不是这个版本的：是另一版本的适配器，或另一个基座。",
        ),
        Text(
            "Load this revision's adapter, or its merged folder: lineage.json there names the data, parameters and code.",
            "载入这个版本的适配器或合并后的模型；文件夹里的 lineage.json 记有数据、参数与代码。",
        ),
    ),
    "quantized_weights": Fault(
        Text("Its weights are rounded to few bits (quantisation).", "权重被量化到很少的位数。"),
        Text(
            "Serve the bfloat16 weights or more bits (GGUF: Q8_0 or BF16), or accept what the scores below say that it costs.",
            "部署 bfloat16 权重或更多位数（GGUF：Q8_0 或 BF16），或接受下方得分所示的代价。",
        ),
    ),
    "missing_stop": Fault(
        Text(
            "Its answers go on after ours have ended: a stop token is missing.",
            "在评测时的回答结束之后仍继续输出：缺少停止词元。",
        ),
        Text(
            "Serve the exported generation_config.json, whose eos_token_id lists all of them, or send them as `stop_token_ids` "
            "(vLLM) or `stop`.",
            "使用导出的 generation_config.json（eos_token_id 列出全部停止词元），或随请求发送 stop_token_ids（vLLM）或 stop。",
        ),
    ),
    "max_tokens": Fault(
        Text("Its answers are cut by a limit of its own.", "回答在服务端自己的长度上限处截断。"),
        Text(
            "Raise the server's limit of new tokens, or its context.",
            "提高服务端的新词元上限或上下文长度。",
        ),
    ),
    "sampling": Fault(
        Text(
            "The same request gets other answers: it samples, although temperature is 0.",
            "同一请求得到不同回答：温度为 0 却仍在采样。",
        ),
        Text(
            "Look for a temperature that overrides the request's (a proxy, the Modelfile, generation_config.json); "
            "speculative or "
            "batch-dependent kernels do the same in few answers.",
            "检查是什么改了请求中的温度（代理、Modelfile、generation_config.json）。如果只有少数回答不同，也可能是因为算子的结果随批次变化。",
        ),
    ),
    "generation_defaults": Fault(
        Text(
            "Prompts and likelihoods are right, and yet its answers are not the greedy ones: settings of generation are added.",
            "提示词与似然都正确，回答却不是贪心解码的结果：服务端另有生成设置。",
        ),
        Text(
            "Send `repetition_penalty: 1` and zero penalties; look at generation_config.json (vLLM: --generation-config vllm "
            "leaves it out), llama.cpp's /props, Ollama's `ollama show --parameters`.",
            "请求中设 repetition_penalty: 1，各惩罚项设为 0；并查看 generation_config.json"
            "（vLLM：--generation-config vllm 可忽略）、"
            "llama.cpp 的 /props、ollama show --parameters。",
        ),
    ),
}  # fmt: skip
PROMPT_FAULTS = (
    "second_bos", "no_bos", "added_bos", "default_system_prompt", "no_generation_prompt", "other_template", "whitespace",
    "other_tokenizer", "truncated_prompt", "thinking",
)  # fmt: skip
WEIGHT_FAULTS = ("adapter_not_loaded", "adapter_scale", "other_adapter", "quantized_weights")
