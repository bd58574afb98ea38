"""The summary table: one row per solver and data set, every number that any of them has, sortable by column."""

from __future__ import annotations

from typing import Any

from fpmtools import columns
from fpmtools.columns import Column
from fpmtools.report.html_folder import Folder, Row


def table(folder: Folder) -> dict[str, Any]:
    """What the template shows: the columns, and of each row its cells in the same order."""
    shown = columns_of(folder)
    return {
        "of": "colour" if folder.picture else "solver",
        "columns": shown,
        "several_data": len(folder.datasets) > 1,
        "repeated": any((row.number("repeats") or 1) > 1 for row in folder.rows),
        "rows": [
            {
                "name": row.name,
                "data": row.data,
                "status": row.status,
                "kind": kind(row),
                "reason": row.reason,
                "repeats": f"{row.number('repeats') or 0:g}",
                "cells": [_cell(row, column) for column in shown],
            }
            for row in folder.rows
        ],
    }


def columns_of(folder: Folder) -> list[Column]:
    """The columns that any row has a number for, by rank; those of unknown numbers last."""
    keys = dict.fromkeys(key for row in folder.rows for key in row.values if row.number(key) is not None)
    ends = {f"{key}_{end}" for key in keys for end in columns.ENDS}
    found = [folder.column(key) for key in keys if key not in columns.WORDS and key not in ends]
    return sorted(found, key=lambda column: column.rank)


def kind(row: Row) -> str:
    """How a status looks."""
    return "good" if row.good else "bad"


def _cell(row: Row, column: Column) -> dict[str, Any]:
    value, low, high = (row.number(column.key + end) for end in ("", *(f"_{end}" for end in columns.ENDS)))
    several = low is not None and high is not None and low != high
    return {
        "main": column.main,
        "value": "" if value is None else repr(float(value)),
        "text": column.text(value),
        "spread": f"{column.text(low)}–{column.text(high)}" if several else "",
    }
