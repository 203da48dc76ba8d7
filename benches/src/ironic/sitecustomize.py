"""Every Python process of the peer runs this when it starts: it shall not outlive the one that started it.

Ironic's first process starts a worker of its own, and the kernel ends with the bench only what the bench itself started.
"""

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


end_with_parent()
# The setting is not inherited by what is forked.
os.register_at_fork(after_in_child=end_with_parent)
