"""Several processes train as one with as many times the patients a step."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import torch

from millie import pipeline
from millie.bags.store import Store
from millie.config import Config
from millie.errors import TrainingError
from millie.learning import parallel
from millie.learning.parallel import Team, joined, team
from millie.learning.sampling import StoredCells
from millie.learning.train import Task, train
from millie.models.encoders import new_encoder
from millie.models.network import build_network
from millie.models.weights import weights_digest

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = [
    "training.mode=end_to_end", "training.max_epochs=2", "training.cells_per_step=4",
    "training.optimiser=sgd", "training.learning_rate=0.01", "model.hidden=[8]",
    "model.aggregator=max",
]  # fmt: skip


MODEL = ["model.encoder=resnet_small", "model.pretrained=false", "training.ensemble=1"]


def train_once(root: Path, words: list[str]) -> dict[str, Any]:
    """Train on a store in this process, or in all that have joined; the losses and the weights."""
    torch.set_num_threads(1)
    store = Store(root)
    labels = {s.patient: str(s.label) for s in store.index()}
    patients = sorted(labels)
    task = Task(("AML", "APL"), labels, tuple(patients[2:]), tuple(patients[:2]), 3)
    config = Config().with_settings([*SETTINGS, *words])
    encoder = new_encoder("resnet_small", seed=1)
    network = build_network(config.model, task.classes, encoder=encoder)
    with joined():
        trained = train(network, StoredCells(store), task, config)
    losses = [[r.train_loss, r.validation_loss] for r in trained.history]
    return {"losses": losses, "weights": weights_digest(trained.network)}


def launch(rank: int, port: int) -> None:
    """What torchrun does for each process: four variables."""
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


def one_of_two(rank: int, port: int, root: Path, words: list[str], out: Path) -> None:
    launch(rank, port)
    (out / f"{rank}.json").write_text(json.dumps(train_once(root, words)))


def one_of_two_trains_a_model(rank: int, port: int, root: Path, out: Path) -> None:
    """As ``torchrun -m millie train`` does; writes what each process was given back."""
    launch(rank, port)
    config = Store(root).description.config.with_settings([*SETTINGS, *MODEL])
    found = pipeline.train(root, out / "model", config)
    (out / f"{rank}.json").write_text(json.dumps(found.to_dict()))


def exchange_and_be_left(rank: int, port: int, out: Path, how: str) -> None:
    """Add up three gradients; then process 1 leaves, and 0 writes what it is told of that."""
    launch(rank, port)
    parallel.PATIENCE = timedelta(seconds=4)
    both, second, nobody = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
    both.grad = torch.full((2,), 1.0 + rank)
    second.grad = torch.ones(2) if rank == 1 else None
    with joined() as processes:
        processes.add_up([both, second, nobody])
        if rank == 1:
            if how == "hangs":
                time.sleep(60)
            os._exit(3)
        found = [None if w.grad is None else w.grad.tolist() for w in (both, second, nobody)]
        try:
            processes.wait()
        except TrainingError as error:
            (out / "left.json").write_text(json.dumps({"sums": found, "message": str(error)}))


def test_two_processes_train_one_model_and_both_are_told(toy_store: Store, tmp_path: Path) -> None:
    spawn, port = multiprocessing.get_context("spawn"), free_port()
    both = [
        spawn.Process(target=one_of_two_trains_a_model, args=(rank, port, toy_store.root, tmp_path))
        for rank in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(300)
        assert process.exitcode == 0
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert [row["n_patients"] for row in first["rows"]] == [6, 6]
    assert (tmp_path / "model" / "bundle.json").is_file()


@pytest.mark.parametrize("how", ["dies", "hangs"])
def test_who_is_left_by_another_process_ends_and_says_so(tmp_path: Path, how: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    port = free_port()
    first, second = (
        spawn.Process(target=exchange_and_be_left, args=(rank, port, tmp_path, how))
        for rank in range(2)
    )
    first.start()
    second.start()
    first.join(50)
    second.kill()
    assert first.exitcode == 0
    told = json.loads((tmp_path / "left.json").read_text())
    assert "another training process died, never started or has been silent for" in told["message"]
    assert told["sums"] == [[3.0, 3.0], [1.0, 1.0], None], "a weight that nobody used has none"


def test_who_waits_for_processes_that_never_come_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"),
                        ("MASTER_PORT", str(free_port()))):  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(parallel, "PATIENCE", timedelta(seconds=1))
    with pytest.raises(TrainingError, match="never started"), joined():
        pytest.fail("joined a group of one")


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


@pytest.mark.parametrize("exact", [False, True])
def test_two_processes_have_the_losses_of_one_with_twice_the_patients(
    toy_store: Store, tmp_path: Path, exact: bool
) -> None:
    # 10 patients in steps of 3 + 3: the last step has 4, and dropout is on.
    words = [f"training.exact_gradient={str(exact).lower()}"]
    spawn = multiprocessing.get_context("spawn")
    port = free_port()
    both = [
        spawn.Process(
            target=one_of_two,
            args=(rank, port, toy_store.root, [*words, "training.patients_per_step=3"], tmp_path),
        )
        for rank in range(2)
    ]
    for process in both:
        process.start()
    alone = train_once(toy_store.root, [*words, "training.patients_per_step=6"])
    for process in both:
        process.join(300)
        assert process.exitcode == 0
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second, "the same losses and the same bits in every process"
    found, wanted = torch.tensor(first["losses"]), torch.tensor(alone["losses"])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 5, 8])
def test_shares_are_disjoint_and_together_all(size: int, count: int) -> None:
    everything = list(range(count))
    shares = [everything[Team(rank, size).share(count)] for rank in range(size)]
    assert [i for share in shares for i in share] == everything
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_is_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as processes:
        assert processes == Team() == team()
        assert processes.leads
        rows = torch.ones(2, 3)
        assert processes.gather(rows, 2) is rows
        processes.agree("epoch", 4)
        processes.wait()
