"""The glossary of the report: metrics and terms by the names that readers see, and what they mean in a sentence."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tuneline.formats.html import Text
from tuneline.runtime.evaluation_folder import FOLDER


class Entry(NamedTuple):
    title: Text
    meaning: Text


def _entry(en: str, zh: str, means: str, meaning: str) -> Entry:
    return Entry(Text(en, zh), Text(means, meaning))


def _extraction(title: str, chinese: str, classes: str, kinds: str) -> tuple[Entry, ...]:
    return (
        _entry(
            f"{title}: precision",
            f"{chinese}：精确率",
            "Share of what was extracted that is right.",
            "抽出的内容中正确的比例。",
        ),
        _entry(
            f"{title}: recall",
            f"{chinese}：召回率",
            "Share of what is right that was extracted.",
            "应抽出的内容中被抽出的比例。",
        ),
        _entry(
            f"{title}: F1",
            f"{chinese}：F1",
            "Harmonic mean of precision and recall, over all items.",
            "全部条目合在一起计算的精确率与召回率的调和平均。",
        ),
        _entry(
            f"{title}: macro F1",
            f"{chinese}：宏平均 F1",
            f"Mean of F1 over the {classes}, rare ones counting as much.",
            f"各{kinds} F1 的平均，少见的同样计入。",
        ),
    )


_TRIPLES = _extraction("Triples", "三元组", "relations", "关系")
_ENTITIES = _extraction("Entities", "实体", "types", "类型")
_LABELS = _extraction("Sets of labels", "标签集合", "labels", "标签")
METRIC_ENTRIES = {
    "label_accuracy": _entry("Accuracy", "准确率", "Share of items whose label is right.", "标签答对的条目比例。"),
    "label_macro_f1": _entry(
        "Macro F1 of labels",
        "标签宏平均 F1",
        "Mean of F1 over the labels, rare ones counting as much.",
        "各标签 F1 的平均，少见的同样计入。",
    ),
    **dict(zip(("triples_precision", "triples_recall", "triples_f1", "triples_macro_f1"), _TRIPLES, strict=True)),
    **dict(zip(("entities_precision", "entities_recall", "entities_f1", "entities_macro_f1"), _ENTITIES, strict=True)),
    **dict(zip(("labels_precision", "labels_recall", "labels_f1", "labels_macro_f1"), _LABELS, strict=True)),
    "labels_exact_match": _entry(
        "Exact match of label sets",
        "标签集合完全匹配",
        "Share of items whose labels are all right, and no others.",
        "所有标签都答对、且没有多余标签的条目比例。",
    ),
    "tools_exact_match": _entry(
        "Calls all right",
        "调用完全正确",
        "Of the items where a call is wanted or made: share whose functions and arguments are all right.",
        "应当调用或作了调用的条目中，函数与参数全对的比例。",
    ),
    "tools_name_accuracy": _entry(
        "Functions right",
        "函数名正确",
        "Of the items where a call is wanted or made: share whose functions are the right ones.",
        "应当调用或作了调用的条目中，函数名全对的比例。",
    ),
    "tools_arguments_f1": _entry(
        "Arguments: F1",
        "参数 F1",
        "Harmonic mean of the shares of given arguments that are right, and of wanted ones that are given.",
        "两个比例的调和平均：给出的参数中正确的比例，应给的参数中给对的比例。",
    ),
    "tools_call_accuracy": _entry(
        "Call or not",
        "是否调用",
        "Share of items where it calls if the reference does, and answers if that does.",
        "该调用时调用、不该调用时直接回答的条目比例。",
    ),
    "tools_readable": _entry(
        "Readable calls",
        "调用可读",
        "Share of calls that have the form the base's chat template asks for, JSON included; 0 without any call.",
        "形式（含 JSON）符合对话模板的调用比例；没有调用时为 0。",
    ),
    "tools_valid": _entry(
        "Valid calls",
        "调用合规",
        "Share of calls whose function is defined and whose arguments fit its JSON Schema; 0 without any call.",
        "函数有定义、参数符合其 JSON Schema 的调用比例；没有调用时为 0。",
    ),
    "rouge_l": _entry(
        "ROUGE-L",
        "ROUGE-L",
        "Words shared with the reference in the same order (longest common subsequence), 0 to 100.",
        "与参考答案按相同次序共有的词（最长公共子序列），0 至 100。",
    ),
    "rouge_1": _entry(
        "ROUGE-1", "ROUGE-1", "Words shared with the reference, 0 to 100.", "与参考答案共有的词，0 至 100。"
    ),
    "rouge_2": _entry(
        "ROUGE-2",
        "ROUGE-2",
        "Pairs of words shared with the reference, 0 to 100.",
        "与参考答案共有的相邻词对，0 至 100。",
    ),
    "bleu_4": _entry(
        "BLEU-4",
        "BLEU-4",
        "Word sequences of up to four shared with the reference, 0 to 100.",
        "与参考答案共有的一至四词片段，0 至 100。",
    ),
    "chrf": _entry(
        "chrF",
        "chrF",
        "Character sequences shared with the reference, 0 to 100.",
        "与参考答案共有的字符片段，0 至 100。",
    ),
    "exact_match": _entry(
        "Exact match", "完全一致", "Share of answers that equal the reference.", "与参考答案完全相同的回答比例。"
    ),
    "nll_per_char": _entry(
        "NLL per character",
        "每字 NLL",
        "Negative log-likelihood: how surprised the model is by the reference; lower is better.",
        "负对数似然：模型对参考答案感到意外的程度，越低越好。",
    ),
    "nll_per_token": _entry(
        "NLL per token", "每词元 NLL", "The same per token; lower is better.", "同上，按词元计，越低越好。"
    ),
    "length_ratio": _entry(
        "Length",
        "长度比",
        "Length of the answer over that of the reference; 1 is right.",
        "回答与参考答案的长度之比，1 最好。",
    ),
    "distinct_2": _entry(
        "Distinct bigrams",
        "不同词对",
        "Share of word pairs in an answer that are not repeats.",
        "回答中不重复的相邻词对比例。",
    ),
    "repetition": _entry(
        "Repeated 4-grams",
        "重复片段",
        "Share of four-word sequences in an answer that it said before; high where answers loop.",
        "回答中重复出现的四词片段的比例；反复说同样的话时很高。",
    ),
    "eos_rate": _entry(
        "Ends by itself",
        "自行结束",
        "Share of answers that the model ends itself (EOS), instead of being cut off at the limit.",
        "由模型自己结束（EOS）、没有在长度上限处截断的回答比例。",
    ),
}
"""By name of a metric, in the order of the page: a task's own come first."""
TERMS = {
    "test_set": _entry(
        "test set",
        "测试集",
        "Held-out items that are no part of the training set; both models answer them.",
        "留出的条目，不在训练集中，由两个模型各答一遍。",
    ),
    "base": _entry("base", "基座", "The model before fine-tuning.", "微调之前的模型。"),
    "tuned": _entry("tuned", "微调后", "The model after fine-tuning.", "微调之后的模型。"),
    "interval": _entry(
        "95 % interval",
        "95 % 区间",
        "Where the figure would lie with other items of this kind (bootstrap over items; "
        "for one model's share of right items, such as accuracy, Wilson score interval).",
        "换一批同类条目时，数值大致会落在这个范围（对条目自助抽样；单个模型的准确率等比例类指标用 Wilson 得分区间）。",
    ),
    "p": _entry(
        "p",
        "p 值",
        "How often equal models would differ as much, by a paired permutation test.",
        "如果两个模型没有差别，出现这么大差异的概率（配对置换检验）。",
    ),
    "wins": _entry(
        "better / same / worse",
        "更好 / 持平 / 更差",
        "Items on which the tuned model does better than the base, the same, or worse.",
        "微调后比基座更好、与基座持平、比基座更差的条目数。",
    ),
    "reference": _entry("reference", "参考答案", "The right answer that came with the data.", "数据自带的正确答案。"),
}
TASKS = {
    "label": Text("labelling", "分类"),
    "labels": Text("labelling with several labels", "多标签分类"),
    "qa": Text("question answering", "问答"),
    "tools": Text("tool calls", "工具调用"),
    "triples": Text("extraction of triples", "三元组抽取"),
    "entities": Text("extraction of entities", "实体抽取"),
}
METHODS = {
    "lora": Text("LoRA", "LoRA"),
    "p_tuning": Text("P-Tuning", "P-Tuning"),
    "prefix": Text("prefix tuning", "前缀微调"),
    "prompt": Text("prompt tuning", "提示微调"),
    "freeze": Text("all but a few layers frozen", "冻结微调"),
    "full": Text("full fine-tuning", "全参数微调"),
}


def task_name(task: str) -> Text:
    return TASKS.get(task, Text(task, task))


def method_name(method: str) -> Text:
    return METHODS.get(method, Text(method, method))


def entries_of(details: Mapping[str, Any]) -> dict[str, Entry]:
    """METRIC_ENTRIES, and those of the user's own metrics after them, which say the same in both languages."""
    own = {
        name: _entry(one["title"], one["title"], *(_meaning(name, one, items) for items in ("{} items", "{} 条")))
        for name, one in details.get("own", {}).items()
    }
    return METRIC_ENTRIES | own


def _meaning(name: str, one: Mapping[str, Any], items: str) -> str:
    """What its author says, where it stands, and of how many items it is."""
    said = one["meaning"] or name
    return f"{said} ({FOLDER}/{one['spec']} {one['version']}; {items.format(one['items'])})"
