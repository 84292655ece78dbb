"""Rounds into medians and ranges, and those into a Markdown table."""

import statistics


def summary(values):
    """The median, the least and the most of some values."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def shown(value):
    """A figure for people: three digits are enough, and large ones are grouped."""
    if value >= 1000:
        digits = len(str(int(value)))
        return f"{round(value, 3 - digits):,.0f}"
    return f"{value:.3g}"


def duration(micros):
    """A time for people."""
    return f"{micros / 1000:,.3g} ms" if micros < 1_000_000 else f"{micros / 1_000_000:,.3g} s"


def table(header, rows):
    """A Markdown table; every column but the first is of numbers."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def group_rows(results, contenders):
    """A row for each contender of a group; ratios are to the first one."""
    first = summary([result["value"] for result in results[contenders[0]]])["median"]
    for name in contenders:
        figures = summary([result["value"] for result in results[name]])
        times = [result["latency_us"] for result in results[name] if result.get("latency_us")]
        p50 = duration(statistics.median(time["p50"] for time in times)) if times else "–"
        p99 = duration(statistics.median(time["p99"] for time in times)) if times else "–"
        ratio = figures["median"] / first if first else 0
        yield [
            name, shown(figures["median"]), f"{shown(figures['least'])} – {shown(figures['most'])}",
            f"{ratio:.2f}", p50, p99,
        ]
