"""`python -m iwin.cli.torchrun`: torchrun, without its own traceback when a process has failed and said why.

It takes torchrun's arguments.
"""

import logging
import os
import signal
import sys


def main() -> int:
    """Run the processes; returns the exit status of the one that failed first."""
    from torch.distributed import DistNetworkError
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import get_args_parser, run

    logging.disable(logging.ERROR)  # what torchrun logs about a process is said below, in a sentence
    args = get_args_parser().parse_args()
    if args.nproc_per_node.isdigit():
        # torchrun's own default is a thread a process, which would leave most cores idle where there is no GPU.
        threads = max(1, (os.cpu_count() or 1) // max(1, int(args.nproc_per_node)))
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    try:
        run(args)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode >= 0:
            return failure.exitcode
        killed = signal.Signals(-failure.exitcode).name
        hint = "; it may have run out of memory" if killed == "SIGKILL" else ""
        print(f"iwin: process {rank} was ended by {killed}{hint}", file=sys.stderr)
        return 1
    except SignalException as stopped:
        return 128 + stopped.sigval
    except DistNetworkError:
        print(f"iwin: port {args.master_port} cannot be used; choose another one: PORT=29501 bash …", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
