"""Processes that end with the one that started them, whatever ends that one."""

import os
import threading
import time

WATCHED = 0.5  # seconds between looks for the parent


def end_with(parent: int) -> None:
    """End this process soon after its parent, of which this is the process number, is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCHED)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
