"""What the exercise notebooks call to see whether an answer is right: one module a chapter, each `check_...(answer)`.

A check calls the answer with small inputs and compares it with torch's own part or with numbers worked out by hand. It
passes every right answer, however it is written, and tells a wrong one in words what is wrong and, where the mistake is
a known one, which idea is behind it.
"""
