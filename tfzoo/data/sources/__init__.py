"""Where examples come from: every file is a source.

A source has `PATTERN`, the texts of `--data` that mean it (None: a folder), `KINDS`, kind -> what to write in words,
and `open(text, wanted)`, which gives a `tfzoo.data.Source`. Frameworks are imported inside functions.
"""
