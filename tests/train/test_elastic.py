"""What lives on in the memory of workers: the latest commit of any, with rank 0's statistics, on all."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from hvdtrain.checkpoint import format as form
from hvdtrain.checkpoint import store
from hvdtrain.checkpoint.format import Manifest
from hvdtrain.distributed.elastic import WorkersChange
from hvdtrain.errors import PeerLost
from hvdtrain.train.elastic import Committing, Kept

from .workers import Beside, at_once, beside, state

BELONGS = Manifest(0, 0, "config", "data", workers=2, global_batch=32)


class Quiet:
    """Hosts of which there is no news, until there is."""

    news = False

    def check(self) -> None:
        if self.news:
            raise WorkersChange


def worker(comm: Beside, kept: Kept, hosts: Quiet, *, seed: int = 0, step: int = 0) -> Committing:
    parts: Any = SimpleNamespace(state=state("batch", seed=seed))
    parts.state.step, parts.state.images_seen = step, 32 * step
    return Committing(kept, comm, parts, BELONGS, hosts)


def committed(steps: list[int], *, resets: int = 0) -> list[Kept]:
    """Of each worker after its own number of steps."""
    found = []
    for step in steps:
        (alone,), kept = beside(1), Kept(every_steps=10)
        kept.meet(alone)
        kept.past.resets = resets
        worker(alone, kept, Quiet(), seed=step, step=step).commit()
        found.append(kept)
    return found


def meet(kept: list[Kept]) -> list[tuple[int | None, int]]:
    """The step that each goes on from, and how often the workers have changed to its knowledge."""
    comms = beside(len(kept))
    found = at_once(*(lambda k=k, comm=comm: k.meet(comm) for k, comm in zip(kept, comms, strict=True)))  # type: ignore[misc]
    return [(f.manifest.step if f else None, k.past.resets) for f, k in zip(found, kept, strict=True)]


def test_those_who_begin_have_nothing() -> None:
    assert meet([Kept(every_steps=10), Kept(every_steps=10)]) == [(None, 0), (None, 0)]


def test_all_go_on_from_the_latest_commit_of_any_also_one_who_has_none() -> None:
    kept = [Kept(every_steps=10), *committed([20, 30])]
    assert meet(kept) == [(30, 1)] * 3
    assert meet(kept[:1]) == [(None, 2)], "what was handed round is committed by those who went on with it"


def test_resets_are_counted_by_whoever_has_seen_most() -> None:
    (old,), (young,) = committed([20], resets=4), committed([30], resets=2)
    assert meet([old, young]) == [(30, 5), (30, 5)]


def test_a_set_that_ended_before_its_first_commit_counts_too() -> None:
    kept = [Kept(every_steps=10), Kept(every_steps=10)]
    meet(kept)
    assert meet(kept) == [(None, 1), (None, 1)]


def test_a_commit_is_the_state_with_rank_0s_statistics() -> None:
    comms, kept = beside(2), [Kept(every_steps=10), Kept(every_steps=10)]
    workers = [
        worker(comm, k, Quiet(), seed=seed, step=7) for seed, (comm, k) in enumerate(zip(comms, kept, strict=True))
    ]
    states = [w._parts.state for w in workers]
    for number, of in enumerate(states):
        for buffer in of.model.buffers():
            buffer.fill_(number + 1)
    at_once(*(w.commit for w in workers))
    for buffer in states[0].model.buffers():
        buffer.fill_(99)  # the step after it
    alone = [k.meet(comm) for k, (comm,) in zip(kept, (beside(1), beside(1)), strict=True)]
    for found, of in zip(alone, states, strict=True):
        assert found is not None
        assert (found.manifest.step, found.manifest.images_seen, found.manifest.global_batch) == (7, 7 * 32, 32)
        tensors = form.tensors(found.data, torch.device("cpu"))
        for name, tensor in of.model.named_parameters():
            assert torch.equal(tensors["model"][name], tensor)
        assert all(bool((tensors["model"][name] == 1).all()) for name in tensors["model"] if "running" in name)


def test_it_commits_when_it_is_due_and_looks_for_hosts_then() -> None:
    (alone,), kept, hosts = beside(1), Kept(every_steps=3), Quiet()
    kept.meet(alone)
    committing = worker(alone, kept, hosts)
    of = committing._parts.state
    hosts.news = True
    for step in (1, 2):
        of.advance(32 * step)
        committing.step_done(now=False)
    assert kept.past.images_seen == 64
    assert kept.save(Path("nowhere")) is None
    of.advance(96)
    with pytest.raises(WorkersChange):
        committing.step_done(now=False)
    of.advance(128)
    with pytest.raises(WorkersChange):
        committing.step_done(now=True)
    found = kept.meet(alone)
    assert found is not None
    assert found.manifest.step == 4


def test_the_last_commit_can_be_written_down(tmp_path: Path) -> None:
    (kept,) = committed([20])
    assert kept.save(tmp_path) == 20
    assert kept.save(tmp_path) == 20
    checkpoint = store.latest(tmp_path).checkpoint
    assert checkpoint is not None
    assert replace(
        checkpoint.manifest, saved_at=0, versions={}, tensors_bytes=0, tensors_sha256="", spent_seconds=0
    ) == (replace(BELONGS, images_seen=640, step=20))


@pytest.mark.parametrize(
    ("error", "among"), [(PeerLost("gone"), False), (WorkersChange(), False), (ValueError(), True)]
)
def test_it_knows_whether_there_is_a_set_of_workers(error: Exception, among: bool) -> None:
    """Not before all of them have the commit: until then it is each worker's own to save."""
    (alone,), kept, parts = beside(1), Kept(every_steps=1), SimpleNamespace(state=state("batch", seed=0))
    with pytest.raises(ValueError), kept.entering(3):
        raise ValueError
    assert (kept.among_workers, kept.rank) == (False, 3)
    with pytest.raises(type(error)), kept.entering(3):
        kept.begin(alone, cast(Any, parts), BELONGS, Quiet())
        assert kept.among_workers
        raise error
    assert kept.among_workers == among
