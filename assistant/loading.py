"""One model at a time.

While transformers loads a model it replaces functions of its own classes. Two threads that load at once put
back each other's replacements, and every later load in that process gives a model whose weights are not tied.
"""

import threading

LOADING = threading.Lock()
"""Held around everything that loads a model by transformers."""
