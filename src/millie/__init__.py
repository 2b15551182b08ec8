"""millie: leukaemia calls from images of blood and marrow, with the cells behind each call.

For research use only. The package is used from the command line (``millie --help``) or through
:mod:`millie.pipeline`, which runs the stages in the order of the method.
"""

__version__ = "0.1.0"
