"""Child processes that end when their parent ends, however it ends."""

import os
import threading
import time

CHECK_SECONDS = 0.5  # between checks of the parent


def end_with(parent: int) -> None:
    """End this process within `CHECK_SECONDS` after its parent, given by process number, ends."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(CHECK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
