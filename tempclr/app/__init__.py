"""A page in the browser to look at alignments: ``tempclr app``, or a Space of the Hub.

``aligning`` readies a model for the videos of others, ``page`` turns an alignment into HTML, ``examples`` makes or
reads what there is to try; none of them knows Gradio, which ``interface`` alone imports, when it is used.
"""

from tempclr.app.interface import serve
from tempclr.app.space import write_space

__all__ = ["serve", "write_space"]
