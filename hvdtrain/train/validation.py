"""The validation images alone, for whoever does not train: the same pictures, batches and shares as within a run."""

from collections.abc import Iterator

from hvdtrain.config.checks import expanded
from hvdtrain.config.schema import Config
from hvdtrain.data import scan, synthetic
from hvdtrain.data.index import Index
from hvdtrain.data.loader import Batch, Source
from hvdtrain.data.parallel import thread_pool
from hvdtrain.distributed.comm import Comm, on_rank_0
from hvdtrain.train.data import Machine, broadcast_index, make_decoder, open_storage, validation_share
from hvdtrain.train.quarantine import SharedQuarantine

PART = "val"


class Validation:
    """Of one worker. They are read where they lie: `data.stage` is for what is read again and again."""

    def __init__(self, config: Config, comm: Comm, machine: Machine) -> None:
        """Collective.

        Raises:
            DataError: there are none, or too many of them cannot be decoded.
        """
        self._config, self._comm = config, comm
        self.index = _index(config, comm, machine.threads)
        storage = open_storage(config, machine, self.index, config.data.dir / PART)
        decoder = make_decoder(
            config,
            machine,
            thread_pool(1, "decode-ahead"),
            self.index,
            config.evaluation.batch_size,
            storage.by_name,
            config.data.image_size,
        )
        self._source = Source(self.index, storage, decoder)
        SharedQuarantine(config, comm, {PART: self._source})

    def batches(self) -> Iterator[Batch]:
        """This worker's share, once. Every worker's has as many batches: one may be empty."""
        return validation_share(self._config, self._comm, self._source)


def _index(config: Config, comm: Comm, threads: int) -> Index:
    if config.data.source == "synthetic":
        return synthetic.index(PART)

    def look() -> Index:
        cache = expanded("data.cache_dir", config.data.cache_dir)
        return scan.find(config.data.dir / PART, cache=cache, workers=threads)

    return broadcast_index(on_rank_0(comm, look, "indices"), comm, PART)
