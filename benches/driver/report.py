"""Writes the rows to a file of numbers, and from that file the tables."""

import json
import statistics
from pathlib import Path

BEGIN, END = "<!-- measured by benches/run: do not edit -->", "<!-- end of what was measured -->"


def as_data(row):
    """A row as it is stored."""
    cells = []
    for who in dict.fromkeys([*row.samples, *row.notes]):
        values = row.values(who)
        cells.append({
            "who": who,
            "rounds": len(values),
            "min": min(values, default=None),
            "median": statistics.median(values) if values else None,
            "ratio": row.ratio(who, row.baseline) if values else None,
            "note": row.notes.get(who),
        })
    goals = []
    for goal in row.goals:
        got = row.got(goal)
        goals.append({
            "who": goal.who,
            "against": goal.against,
            "goal": goal.text,
            "most": goal.most,
            "added": goal.added,
            "got": got,
            "reached": got is not None and got <= goal.most,
        })
    elsewhere = {"where": row.where} if row.where else {}
    return {"key": row.key, "work": row.work, **elsewhere, "unit": row.unit, "baseline": row.baseline, "cells": cells, "goals": goals}


def digits(value):
    """Three significant digits."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def amount(value, unit):
    if value is None:
        return "–"
    if unit == "ns":
        for size, name in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
            if value >= size:
                return f"{digits(value / size)} {name}"
        return f"{value:.0f} ns"
    return f"{value:.0f}" + (" KB" if unit == "KB" else "")


def ratio(value):
    if value is None:
        return "–"
    return f"{digits(value)}×" if value >= 0.1 else f"1/{1 / value:,.0f}" if value else "0"


def got(goal, unit):
    if goal["got"] is None:
        return "not measured"
    if goal["added"]:
        sign = "−" if goal["got"] < 0 else "+"
        return sign + amount(abs(goal["got"]), unit)
    return ratio(goal["got"])


def goal_lines(results):
    """The table for the README: a line for each goal."""
    lines = ["| work | who | median | against | median | measured | goal | |", "|---|---|---|---|---|---|---|---|"]
    for row in results["rows"]:
        medians = {cell["who"]: cell["median"] for cell in row["cells"]}
        for goal in row["goals"]:
            ours, theirs = (amount(medians.get(goal[side]), row["unit"]) for side in ("who", "against"))
            mark = "reached" if goal["reached"] else "not measured" if goal["got"] is None else "**not reached**"
            lines.append(f"| {row['work']} | {goal['who']} | {ours} | {goal['against']} | {theirs} | {got(goal, row['unit'])} | {goal['goal']} | {mark} |")
    return lines


def place(results):
    host = results["host"]
    return (f"Measured on {results['when']} with `benches/run {results['mode']}`: Linux {host['kernel']}, {host['cpus']} × {host['cpu']}, "
            f"{host['memory_gb']} GB, load {host['load']} when it began. `measured` is the median of the ratios of the same round.")


def full_table(results):
    reached = sum(goal["reached"] for row in results["rows"] for goal in row["goals"])
    total = sum(len(row["goals"]) for row in results["rows"])
    text = ["# Results", "", place(results), "", "Versions: " + ", ".join(f"{name} {version}" for name, version in results["versions"].items()) + ".", "",
            f"## Goals: {reached} of {total} reached", "", *goal_lines(results), "", "## Everything"]
    for row in results["rows"]:
        where = ["", row["where"]] if "where" in row else []
        text += ["", f"### {row['work']}", *where, "", f"| who | min | median | against {row['baseline']} | rounds | |", "|---|---|---|---|---|---|"]
        for cell in row["cells"]:
            low, middle = amount(cell["min"], row["unit"]), amount(cell["median"], row["unit"])
            text.append(f"| {cell['who']} | {low} | {middle} | {ratio(cell['ratio'])} | {cell['rounds']} | {cell['note'] or ''} |")
    return "\n".join(text) + "\n"


def write(results, directory):
    directory.mkdir(exist_ok=True)
    name = results["mode"]
    (directory / f"{name}.json").write_text(json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    (directory / f"{name}.md").write_text(full_table(results))


def update_readme(readme: Path, results):
    """Puts the table between its marks."""
    before, found, rest = readme.read_text().partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise SystemExit(f"benches/run: {readme} has no marks for the table")
    table = "\n".join(["", place(results), "", *goal_lines(results), ""])
    readme.write_text(before + BEGIN + table + END + after)
