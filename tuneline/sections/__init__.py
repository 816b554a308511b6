"""One frozen model per section of params.yaml, one file each.

A stage depends on the files of the sections it loads and on no other, so that changing what
`evaluate` accepts does not make `convert` run again. Values live in params.yaml alone: a field
has no default here unless leaving it out means something.
"""
