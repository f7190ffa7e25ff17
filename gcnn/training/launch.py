"""torchrun without its own error banner; options are torchrun's:

    python -m gcnn.training.launch --standalone --nproc-per-node=2 -- SCRIPT ...

The processes print their errors themselves. This one ends with the exit code of the first that
failed and prints nothing more.
"""

import logging
import os
import sys

# torchrun's own default, which it announces among stars.
os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or "1"

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

if __name__ == "__main__":
    logging.disable(logging.ERROR)  # in this process alone
    try:
        run.main()
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        sys.exit(code if code > 0 else 128 - code)
    except SignalException as error:
        sys.exit(128 + error.sigval)
