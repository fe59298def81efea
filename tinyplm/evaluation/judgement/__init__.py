"""Human judgement: blind comparisons of the answers of two or more systems.

sheet.py    from answers to a page, a table and the key that says which answer is whose
page.html   the page on which a judge works: one file, without a server
ratings.py  what the judges said, from the page or from the table
results.py  win rates, agreement, strengths
"""

from .ratings import Rating, read_ratings
from .results import Results, judge_results
from .sheet import CRITERIA, Item, Sheet, make_sheet, read_answers, read_key, write_sheet

__all__ = [
    "CRITERIA",
    "Item",
    "Rating",
    "Results",
    "Sheet",
    "judge_results",
    "make_sheet",
    "read_answers",
    "read_key",
    "read_ratings",
    "write_sheet",
]
