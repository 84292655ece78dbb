"""Plots, drawn by gnuplot as SVG."""

import os
import subprocess

from benchlib.machine import Failure

NEEDED = (("gnuplot", "gnuplot-nox"),)

CHATD = "#1f6feb"
OTHER = "#9aa4b2"
# A bar more than so many times as long as the next is drawn shortened: it would leave nothing to see of the others.
OFF_SCALE = 5
SERIES = (CHATD, "#d1730d", "#3a9a5b", "#8a5cc4")


def draw(path, script):
    """Runs a gnuplot script that draws on the terminal which it is given."""
    done = subprocess.run(
        ["gnuplot"], input=script, capture_output=True, text=True, check=False,
        # Numbers are written the same everywhere.
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode != 0 or not path.exists():
        raise Failure(f"gnuplot: {done.stderr.strip()}")


def quoted(text):
    """A string of gnuplot's that is drawn as it is."""
    return "'" + str(text).replace("'", "''") + "'"


def head(path, width, height, panels, columns):
    """How a page of panels begins."""
    rows = -(-panels // columns)
    return (
        f"set terminal svg size {width},{height} dynamic font 'sans-serif,13' background rgb 'white' noenhanced\n"
        f"set output {quoted(path)}\n"
        f"set multiplot layout {rows},{columns}\n"
        "set border 3 linecolor rgb '#57606a'\nset tics nomirror textcolor rgb '#24292f'\nunset key\n"
    )


def bars(path, panels):
    """Horizontal bars, a panel for each group: (title, unit, [(name, median, least, most)])."""
    script = head(path, 1200, 190 * -(-len(panels) // 2), len(panels), 2)
    script += "set border 2\nunset xtics\nset lmargin 27\nset rmargin 3\nset bmargin 1.5\n"
    for title, unit, rows in panels:
        second = sorted(row[3] for row in rows)[-2:][0] or 1
        most = max(row[3] for row in rows) or 1
        most = 1.5 * second if most > OFF_SCALE * second else most
        script += (
            f"set title \"{title}\\n{unit}\" font ',12'\n"
            f"set xrange [0:{most * 1.3}]\nset yrange [{len(rows) - 0.4}:-0.6]\n"
            "set ytics (" + ", ".join(f"{quoted(row[0])} {place}" for place, row in enumerate(rows)) + ")\n"
            "$rows << end\n"
        )
        for place, (name, median, least, high) in enumerate(rows):
            color = CHATD if name.startswith("chatd") else OTHER
            label = compact(median) + (" (not to scale)" if median > most else "")
            end = min(high, most)
            if median > most:
                median = least = end = most * 0.75
            script += f"{place} {median} {least} {end} {int(color[1:], 16)} \"{label}\"\n"
        script += (
            "end\n"
            "plot $rows using (0):1:(0):2:($1-0.34):($1+0.34):5 with boxxyerror fillstyle solid noborder "
            "linecolor rgb variable, "
            "$rows using 2:1:3:4 with xerrorbars pointtype 0 linecolor rgb '#24292f', "
            f"$rows using ($4+{most * 0.02}):1:6 with labels left textcolor rgb '#24292f'\n"
        )
    draw(path, script + "unset multiplot\n")


def compact(value):
    """A figure that fits beside a bar."""
    for limit, suffix in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"


def axis_format(most):
    """How numbers of up to `most` stand at an axis."""
    if most < 1000:
        return "%g"
    return "%.1s%c" if float(f"{most:e}".split("e")[0]) < 5 else "%.0s%c"


def lines(path, panels):
    """Lines with points, a panel for each: (title, x label, y label, log axes, {name: [(x, y)]})."""
    script = head(path, 1080, 300 * -(-len(panels) // 2), len(panels), 2) + "set grid linecolor rgb '#d0d7de'\n"
    for title, x_label, y_label, logarithmic, series in panels:
        most = max(y for points in series.values() for _, y in points) or 1
        script += (
            f"set title {quoted(title)} font ',13'\nset xlabel {quoted(x_label)}\nset ylabel {quoted(y_label)}\n"
            "unset logscale\n" + (f"set logscale {logarithmic}\n" if logarithmic else "") +
            f"set format x '%.0s%c'\nset format y '{axis_format(most)}'\n"
            "set offsets graph 0.05, graph 0.05, graph 0, graph 0\nset autoscale\n"
            # Room for the key above the lines.
            + ("" if "y" in logarithmic else f"set yrange [0:{1.4 * most}]\n")
            + ("" if "x" in logarithmic else "set xrange [0:*]\nset offsets 0, 0, 0, 0\n")
            + ("set key top left\n" if len(series) > 1 else "unset key\n")
        )
        drawn = []
        for number, (name, points) in enumerate(series.items()):
            script += f"$series{number} << end\n" + "".join(f"{x} {y}\n" for x, y in points) + "end\n"
            drawn.append(
                f"$series{number} using 1:2 with linespoints pointtype 7 pointsize 0.6 linewidth 2 "
                f"linecolor rgb '{SERIES[number % len(SERIES)]}' title {quoted(name)}"
            )
        script += "plot " + ", ".join(drawn) + "\n"
    draw(path, script + "unset multiplot\n")
