"""Says in one line, before anything is downloaded, that this Python cannot run the toolkit. Has to run in old
Pythons."""

import platform
import sys

WORKS = ((3, 11), (3, 12))


def problem(version, implementation, bits):
    """Returns what is wrong with an interpreter; None if nothing is."""
    if tuple(version[:2]) not in WORKS:
        why = "too old" if version < WORKS[0] else "NumPy 1.26.4, which PaddleNLP 3.0.0b4 needs, has no build for it"
        return "Python %d.%d: %s; use Python 3.11 or 3.12 (make setup PYTHON=python3.11)" % (
            version[0],
            version[1],
            why,
        )
    if implementation != "CPython" or bits < 64:
        return "%s of %d bits: PaddlePaddle has builds for CPython of 64 bits only" % (implementation, bits)
    return None


if __name__ == "__main__":
    found = problem(tuple(sys.version_info), platform.python_implementation(), 64 if sys.maxsize > 2**32 else 32)
    if found:
        sys.stderr.write("error: %s\n" % found)
        sys.exit(1)
