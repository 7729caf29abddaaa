"""What to do about a device that waits for videos."""

from collections.abc import Mapping
from dataclasses import dataclass, field

WAITING = 0.2
"""Share of the time that training may wait for videos before anything is said."""


@dataclass
class Advice:
    """Looks at a run's records and says, once, which setting to change.

    Attributes:
        num_workers: decoder processes of a training process.
        processes: training processes on this machine.
        cores: cores that they may use.
    """

    num_workers: int
    processes: int
    cores: int
    _records: int = field(default=0, init=False)
    _said: bool = field(default=False, init=False)

    def __call__(self, record: Mapping[str, float]) -> str | None:
        """One line of advice, if a record ("time" and "data_time", seconds a batch) calls for the first.

        The first record says nothing: in it, the decoder processes were still starting.
        """
        self._records += 1
        share = record["data_time"] / record["time"]
        if self._said or self._records == 1 or share <= WAITING:
            return None
        self._said = True
        return f"training waits for videos {share:.0%} of the time: {self._knob()}"

    def _knob(self) -> str:
        used = self.processes * max(self.num_workers, 1)
        if self.num_workers == 0:
            return "data.workers_per_gpu=0 decodes in the training process itself; set it to 1 or more"
        if used < self.cores:
            return (
                f"raise data.workers_per_gpu above {self.num_workers}; {used} of {self.cores} cores decode, and "
                "`iwin bench data` tells what one of them can do"
            )
        return (
            f"{used} processes decode on {self.cores} cores already, so videos have to cost less: make smaller ones "
            "once with `iwin data resize`, or see data.train.scaling in the documentation"
        )
