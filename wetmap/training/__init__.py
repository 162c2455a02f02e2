"""Training: scores, normalisation, augmentation, the training loop and its restartable state.

Importing this package is cheap; PyTorch comes with ``fit`` and ``data``, Lightning only inside ``fit_network``.
"""
