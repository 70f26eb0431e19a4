"""Answers that graders are graded by: for every check wrong ones, with words its message must have, and right ones.

One module a chapter, named like the checks' own: WRONG maps a check to {name: (answer, words of its message)}, RIGHT to
{name: answer}. Wrong answers are those that learners (and the article) give; right ones are written in unusual ways.
"""
