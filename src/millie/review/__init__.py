"""The review app: a worklist with the urgent case on top, and cells that a person judges and signs.

A Django project in one package, started by ``millie serve``. Needs the extra ``review``; nothing
else in millie imports it.
"""
