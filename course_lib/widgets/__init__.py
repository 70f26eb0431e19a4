"""Explorers: what a lesson lets its reader move. One file a widget, each a function that returns it.

>>> from course_lib.widgets import loss_explorer
>>> loss_explorer().title
'Losses and their gradients'
"""

from course_lib.widgets.loss_explorer import loss_explorer

__all__ = ["loss_explorer"]
