"""The page of a study: what is more than luck, what more rows would bring, and every configuration with its intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tuneline.evaluate.page.figures import p_value
from tuneline.evaluate.page.glossary import METRIC_ENTRIES
from tuneline.formats.html import Text, render
from tuneline.formats.metrics import Metric
from tuneline.study.analysis import PLAIN, Analysis, Comparison, Curve, sign
from tuneline.study.crossed import Estimate
from tuneline.study.plan import Run, title
from tuneline.study.space import Changes

WIDTH, HEIGHT = 640, 220
"""Of the learning curve."""
MARGIN = 40


class State(NamedTuple):
    """How far a study is."""

    name: str
    finished: int
    left_out: Sequence[Run]
    """By the budget."""
    failed: int


def page(analysis: Analysis, state: State) -> str:
    """Self-contained HTML, in English and Chinese."""
    return render(
        Path(__file__).with_name("study.html.jinja"),
        title=Text(f"Study {state.name}", f"研究 {state.name}"),
        state=state,
        analysis=analysis,
        headline=headline(analysis),
        metric=metric_title(analysis.metric, analysis.known),
        known=analysis.known,
        titles={name: metric_title(name, analysis.known) for name in analysis.others},
        left_out=left_out_sentences(analysis),
        shown=shown,
        signed=signed,
        interval=interval,
        difference_interval=difference_interval,
        p_value=p_value,
        tone=tone,
        name=configuration_title,
        chart=chart,
        curve_sentence=curve_sentence,
        winner=winner_sentence(analysis),
        luck=luck_sentence(analysis),
        plain=PLAIN,
        width=WIDTH,
        height=HEIGHT,
    )


def metric_title(name: str, known: Mapping[str, Metric]) -> Text:
    if name in METRIC_ENTRIES:
        return METRIC_ENTRIES[name].title
    text = known[name].title if name in known else name
    return Text(text, text)


WHY = {
    "rows": Text(
        "it is of all rows, and has no values of items to compare", "它对全部题目计算，没有可以比较的逐题数值"
    ),
    "runs": Text("not all runs have it by the same definition", "并非所有运行都有定义相同的该指标"),
    "values": Text("no item has a value in every run", "没有题目在每次运行中都有数值"),
}


def left_out_sentences(analysis: Analysis) -> list[Text]:
    """The project's metrics that are in no table, and why; and how many items are in none."""
    told = [
        Text(f"{name} is not in a study: {WHY[why].en}.", f"本研究不含指标 {name}：{WHY[why].zh}。")
        for name, why in analysis.left_out.items()
    ]
    apart, every = analysis.apart
    if apart:
        told.append(
            Text(
                f"{apart} of {every} held-out items are not in every run and are left out: a parameter changes which items "
                "are held out.",
                f"{every} 道留出题中有 {apart} 道并非每次运行都有，未计入：有参数改变了留出的题目。",
            )
        )
    return told


def configuration_title(changes: Changes) -> Text:
    return Text(title(changes), title(changes) if changes else "params.yaml 现有参数")


def digits(metric: Metric) -> int:
    """After the point: 1 of what goes to a hundred, 3 of all else."""
    return 1 if metric.unit in ("%", "0–100") else 3


def shown(metric: Metric, value: float) -> str:
    return f"{value:.{digits(metric)}f}".replace("-", "−")


def signed(metric: Metric, value: float) -> str:
    text = f"{value:+.{digits(metric)}f}".replace("-", "−")
    return text if float(text.replace("−", "-")) else text.lstrip("+−")


def interval(metric: Metric, found: Estimate) -> str:
    return f"{shown(metric, found.low)} … {shown(metric, found.high)}"


def difference_interval(metric: Metric, found: Estimate) -> str:
    return f"{signed(metric, found.low)} … {signed(metric, found.high)}"


def tone(metric: Metric, row: Comparison) -> str:
    """`good` or `bad` where a difference holds after correction."""
    if row.difference is None or not row.sure:
        return ""
    return "good" if sign(metric) * row.difference.value > 0 else "bad"


def headline(analysis: Analysis) -> Text:
    """What holds after correction, in a sentence."""
    metric, told = analysis.known[analysis.metric], [row for row in analysis.comparisons if row.difference]
    judged = [row for row in told if row.judged]
    if not told:
        return Text("One configuration: nothing to compare", "只有一个配置，没有可以比较的")
    if not judged:
        return Text("One seed: nothing can be said of luck", "只有一个随机种子：无法判断是否出于偶然")
    single, rest = len(told) - len(judged), Text("", "")
    if single:
        rest = Text(f"; {single} more rest on one seed, and say nothing", f"；另有 {single} 处只有一个种子，无法判断")
    better = [row for row in judged if tone(metric, row) == "good"]
    worse = [row for row in judged if tone(metric, row) == "bad"]
    if not better and not worse:
        return Text(
            f"None of {len(judged)} differences is more than luck of seed and items could bring{rest.en}",
            f"{len(judged)} 处差异均未超出随机种子与题目可能带来的偶然{rest.zh}",
        )
    best = max(better or worse, key=lambda row: sign(metric) * (row.difference or row.level).value)
    assert best.difference is not None
    name, gain = configuration_title(best.configuration), signed(metric, best.difference.value)
    return Text(
        f"{len(better)} of {len(judged)} differences are better beyond luck, {len(worse)} worse; {name.en}: {gain}{rest.en}",
        f"{len(judged)} 处差异中，{len(better)} 处确实更好，{len(worse)} 处确实更差；{name.zh}：{gain}{rest.zh}",
    )


def luck_sentence(analysis: Analysis) -> Text | None:
    """How far two runs are apart that differ in nothing but their seed."""
    found = [row.level.seed_variance for row in analysis.comparisons if row.level.seed_variance is not None]
    if not found:
        return Text(
            "One seed: the intervals are over items alone, and say nothing of the luck of the seed. Give --seeds 17 18 19.",
            "只有一个随机种子：区间只涵盖题目，不反映种子带来的偶然。请给出 --seeds 17 18 19。",
        )
    typical = shown(analysis.known[analysis.metric], max(sum(found) / len(found), 0.0) ** 0.5)
    return Text(
        f"From seed to seed the same configuration varies by {typical} (standard deviation, beside the noise of the items).",
        f"同一配置换随机种子时的波动为 {typical}（标准差，已扣除题目噪声）。",
    )


def curve_sentence(metric: Metric, curve: Curve) -> Text:
    """Twice the rows: +x (low … high), and how far to trust it."""
    found = curve.doubling
    gain = f"{signed(metric, found.value)} ({difference_interval(metric, found)})"
    if curve.bends:
        how = Text("the curve bends, so this is from its last two points", "曲线明显弯曲，因此只用最后两点估计")
    elif curve.checked:
        how = Text(
            "by a line over the logarithm of the rows, which the points do not contradict",
            "按数据条数的对数作直线估计，各点与直线不矛盾",
        )
    elif found.seeds == 1:
        how = Text(
            "one seed: the interval is over items alone, and nothing can be said of luck",
            "只有一个种子：区间只涵盖题目，无法判断偶然",
        )
    else:
        how = Text("two points can't show whether the curve bends", "两个点看不出曲线是否弯曲")
    beyond = found.low <= 0 <= found.high
    luck = Text("; it may be nothing", "；也可能没有作用") if beyond else Text("", "")
    return Text(f"Twice the rows: {gain}; {how.en}{luck.en}.", f"数据翻倍：{gain}；{how.zh}{luck.zh}。")


def winner_sentence(analysis: Analysis) -> Text | None:
    """The best of many, and what of its gain is left on items that it was not chosen by."""
    found = analysis.winner
    if found is None:
        return None
    seen, honest = (signed(analysis.known[analysis.metric], value) for value in (found.seen, found.honest))
    name = configuration_title(found.configuration)
    return Text(
        f"{name.en} gained most: {seen}. The best of many looks better than it is: chosen by one half of the items and judged "
        f"by the other, the best gains {honest}.",
        f"{name.zh} 提升最大：{seen}。众多配置中的最优者看上去总比实际好：用一半题目挑选、另一半评判时，"
        f"最优者的提升为 {honest}。",
    )


def chart(curve: Curve) -> dict[str, Any]:
    """Places of the learning curve in an image of WIDTH by HEIGHT: points with whiskers, the rows on a logarithmic scale."""
    from math import log2

    logs = [log2(rows) for rows, _ in curve.points]
    low = min(level.low for _, level in curve.points)
    high = max(level.high for _, level in curve.points)
    span, wide = (high - low) or 1.0, (logs[-1] - logs[0]) or 1.0

    def down(value: float) -> float:
        return round(HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (value - low) / span, 1)

    points = [
        {
            "x": round(MARGIN + (WIDTH - 2 * MARGIN) * (place - logs[0]) / wide, 1),
            "y": down(level.value),
            "low": down(level.low),
            "high": down(level.high),
            "rows": rows,
            "level": level,
        }
        for place, (rows, level) in zip(logs, curve.points, strict=True)
    ]
    return {"points": points, "line": " ".join(f"{point['x']},{point['y']}" for point in points)}
